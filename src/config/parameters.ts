/**
 * The connection parameters of libpq, and where each may be given (PostgreSQL documentation, 32.1.2 and 32.15).
 *
 * @module
 */

/** Parameters that mean here what they mean in libpq, and the variables that give them. */
export const KNOWN: Readonly<Record<string, string | undefined>> = {
  application_name: "PGAPPNAME",
  channel_binding: "PGCHANNELBINDING",
  connect_timeout: "PGCONNECT_TIMEOUT",
  dbname: "PGDATABASE",
  host: "PGHOST",
  hostaddr: "PGHOSTADDR",
  keepalives: undefined,
  keepalives_count: undefined,
  keepalives_idle: undefined,
  keepalives_interval: undefined,
  options: "PGOPTIONS",
  passfile: "PGPASSFILE",
  password: "PGPASSWORD",
  port: "PGPORT",
  require_auth: "PGREQUIREAUTH",
  service: "PGSERVICE",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
  sslmode: "PGSSLMODE",
  sslpassword: undefined,
  sslrootcert: "PGSSLROOTCERT",
  target_session_attrs: "PGTARGETSESSIONATTRS",
  tcp_user_timeout: undefined,
  timezone: "PGTZ",
  user: "PGUSER",
};

/**
 * Parameters of which some values are taken, since they ask for what is so in any case; another one asks for what is not
 * there, and is refused. An empty list: whatever they say changes nothing.
 */
export const LIMITED: Readonly<
  Record<string, { readonly variable?: string; readonly values: readonly string[]; readonly advice?: string }>
> = {
  client_encoding: { variable: "PGCLIENTENCODING", values: [] },
  fallback_application_name: { values: [] },
  gssdelegation: { variable: "PGGSSDELEGATION", values: ["0"] },
  gssencmode: { variable: "PGGSSENCMODE", values: ["disable", "prefer"] },
  gsslib: { variable: "PGGSSLIB", values: [] },
  krbsrvname: { variable: "PGKRBSRVNAME", values: [] },
  load_balance_hosts: { variable: "PGLOADBALANCEHOSTS", values: ["disable"] },
  max_protocol_version: { variable: "PGMAXPROTOCOLVERSION", values: ["3.0", "3.2", "latest"] },
  min_protocol_version: { variable: "PGMINPROTOCOLVERSION", values: ["3.0"] },
  replication: { values: ["false", "off", "no", "0"] },
  requirepeer: { variable: "PGREQUIREPEER", values: [""] },
  sslcertmode: { variable: "PGSSLCERTMODE", values: ["allow", "disable"] },
  sslcompression: { variable: "PGSSLCOMPRESSION", values: ["0"] },
  sslcrl: {
    variable: "PGSSLCRL",
    values: [""],
    advice: "revocation lists are not read; renew the root instead",
  },
  sslcrldir: {
    variable: "PGSSLCRLDIR",
    values: [""],
    advice: "revocation lists are not read; renew the root instead",
  },
  sslnegotiation: { variable: "PGSSLNEGOTIATION", values: ["postgres"] },
  sslsni: { variable: "PGSSLSNI", values: ["1"] },
  ssl_max_protocol_version: { variable: "PGSSLMAXPROTOCOLVERSION", values: ["", "TLSv1.3"] },
  // Nothing below TLS 1.2 is spoken.
  ssl_min_protocol_version: {
    variable: "PGSSLMINPROTOCOLVERSION",
    values: ["", "TLSv1", "TLSv1.1", "TLSv1.2"],
  },
};

/** Variables of libpq, by parameter. */
export const PG_VARIABLES: Readonly<Record<string, string>> = Object.fromEntries([
  ...Object.entries(KNOWN).flatMap(([keyword, variable]) => variable ? [[keyword, variable]] : []),
  ...Object.entries(LIMITED).flatMap(([keyword, { variable }]) => variable ? [[keyword, variable]] : []),
]);

/** Whether a value of a parameter can be taken; otherwise what is wrong with it, behind the name of its source. */
export function refusalOf(keyword: string, value: string): string | undefined {
  if (keyword in KNOWN) return undefined;
  const limited = LIMITED[keyword];
  if (limited) {
    const { values, advice } = limited;
    if (values.length === 0 || values.includes(value)) return undefined;
    const allowed = values.filter((allowed) => allowed !== "");
    const others = allowed.length === 0 ? "leave it out" : `leave it out or use ${allowed.join(" or ")}`;
    return `: "${value}" is not supported; ${advice ?? others}`;
  }
  return ` is not a connection parameter${
    keyword === "schema" ? "; to choose the schema, use --schema" : ""
  }`;
}

/** The white space that a value ends in by mistake, behind the name of its source. */
export function endsIn(value: string): string | undefined {
  if (/[\r\n]$/.test(value)) return "ends in a line break, as a secret read from a file does: remove it";
  return /\s$/.test(value) ? "ends in a space: remove it" : undefined;
}

/** What a value from a file or a variable is likely to hold by mistake, behind the name of its source. */
export function mistakeIn(keyword: string, value: string): string | undefined {
  if (/[\r\n]$/.test(value)) return endsIn(value);
  // deno-lint-ignore no-control-regex -- they are what it is about
  if (keyword !== "password" && /[\x00-\x1f\x7f]/.test(value)) return "holds a control character";
  if (["host", "hostaddr", "port"].includes(keyword) && value.trim() !== value) {
    return "begins or ends with a space: remove it";
  }
  return undefined;
}
