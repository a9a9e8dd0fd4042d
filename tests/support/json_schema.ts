/** As much of JSON Schema as the schemas in docs/schema use. */

export interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
}

const typeOf = (value: unknown): string =>
  value === null
    ? "null"
    : Array.isArray(value)
    ? "array"
    : typeof value === "number"
    ? Number.isInteger(value) ? "integer" : "number"
    : typeof value;

/** Everything in a value that a schema does not allow, by its path. */
export function violations(value: unknown, schema: Schema, path = "$"): readonly string[] {
  const type = typeOf(value);
  const allowed = schema.type === undefined ? undefined : [schema.type].flat();
  if (allowed && !allowed.includes(type) && !(type === "integer" && allowed.includes("number"))) {
    return [`${path} is ${type}, and not ${allowed.join(" or ")}`];
  }
  if (schema.enum && !schema.enum.includes(value)) return [`${path} is none of ${schema.enum.join(", ")}`];
  if (Array.isArray(value)) {
    return schema.items
      ? value.flatMap((one, index) => violations(one, schema.items!, `${path}[${index}]`))
      : [];
  }
  if (type !== "object") return [];
  const fields = value as Record<string, unknown>;
  const { properties = {}, required = [], additionalProperties = true } = schema;
  return [
    ...required.filter((name) => !(name in fields)).map((name) => `${path}.${name} is missing`),
    ...Object.entries(fields).flatMap(([name, one]) => {
      const own = properties[name] ??
        (typeof additionalProperties === "object" ? additionalProperties : undefined);
      if (own) return violations(one, own, `${path}.${name}`);
      return additionalProperties === false ? [`${path}.${name} is not in the schema`] : [];
    }),
  ];
}
