/**
 * Splits a long text at ends of statements, so that PostgreSQL's parser, whose trees are some thirty times as large as
 * the text, has to read only a piece at a time.
 *
 * Lexical rules: PostgreSQL documentation, 4.1. What they leave open (the statements in the body of a function written
 * as BEGIN ATOMIC … END) the parser decides: it cannot read half of one.
 *
 * @module
 */

/**
 * Pieces of a text, each of whole statements as far as the lexical rules tell, of a size or more: their ends, in UTF-16
 * units.
 */
export function pieceEnds(text: string, size: number): readonly number[] {
  const ends: number[] = [];
  let from = 0;
  for (const end of statementEnds(text)) {
    if (end - from < size) continue;
    ends.push(end);
    from = end;
  }
  if (from < text.length) ends.push(text.length);
  return ends;
}

/** What is worth a look: the beginnings of strings, names, comments and brackets, and ends of statements. */
const TOKEN = /'|"|--|\/\*|\$|[();]/g;
const DOLLAR = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y;

/** Behind each semicolon that stands outside of strings, names, comments and brackets. */
function* statementEnds(text: string): Generator<number> {
  const token = new RegExp(TOKEN);
  let depth = 0;
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const at = match.index;
    switch (match[0]) {
      case ";":
        if (depth === 0) yield at + 1;
        break;
      case "(":
        depth++;
        break;
      case ")":
        depth = Math.max(0, depth - 1);
        break;
      case "'":
        token.lastIndex = endOfString(
          text,
          at,
          /[eE]/.test(text[at - 1] ?? "") && !/\w/.test(text[at - 2] ?? ""),
        );
        break;
      case '"':
        token.lastIndex = after(text, '"', at + 1);
        break;
      case "--":
        token.lastIndex = endOfLine(text, at);
        break;
      case "/*":
        token.lastIndex = endOfComment(text, at);
        break;
      default:
        token.lastIndex = endOfDollar(text, at);
    }
  }
}

/** Behind the next of what is looked for, or at the end. Doubled quotes end one string and begin another, which does no harm. */
function after(text: string, what: string, from: number): number {
  const at = text.indexOf(what, from);
  return at === -1 ? text.length : at + what.length;
}

function endOfString(text: string, at: number, hasEscapes: boolean): number {
  if (!hasEscapes) return after(text, "'", at + 1);
  const end = /(?:[^'\\]|\\[\s\S]|'')*'/y;
  end.lastIndex = at + 1;
  return end.test(text) ? end.lastIndex : text.length;
}

function endOfLine(text: string, at: number): number {
  const end = /[\n\r]|$/g;
  end.lastIndex = at;
  return end.exec(text)!.index;
}

function endOfComment(text: string, at: number): number {
  const mark = /\/\*|\*\//g;
  mark.lastIndex = at;
  let depth = 0;
  for (let match = mark.exec(text); match; match = mark.exec(text)) {
    depth += match[0] === "/*" ? 1 : -1;
    if (depth === 0) return mark.lastIndex;
  }
  return text.length;
}

/** Behind a dollar-quoted string; a parameter or a part of a name begins none. */
function endOfDollar(text: string, at: number): number {
  DOLLAR.lastIndex = at;
  const tag = /[A-Za-z0-9_\u0080-\uffff]/.test(text[at - 1] ?? "") ? null : DOLLAR.exec(text);
  return tag ? after(text, tag[0], at + tag[0].length) : at + 1;
}
