/** Longest name from outside that is repeated. */
const MAX_NAME = 253

/** A name or a message from outside, for one line of text: no control, format or line-separating characters, bounded. */
export function plainName(text: string): string {
  const plain = oneLine(text)
  return plain.length > MAX_NAME ? `${plain.slice(0, MAX_NAME)}…` : plain
}

/** The same, of any length. */
export function oneLine(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ')
}

/** Three significant digits, no more than were measured; `-` for null. */
export function rounded(value: number | null): string {
  return value === null ? '-' : String(Number(value.toPrecision(3)))
}

export function milliseconds(value: number | null): string {
  return value === null ? 'unknown' : `${rounded(value)} ms`
}

/** @param share - from 0 to 1 */
export function percent(share: number): string {
  return `${rounded(100 * share)} %`
}

/** ISO 8601 in UTC, without milliseconds that are 0. */
export function isoTime(seconds: number): string {
  return new Date(Math.round(seconds * 1000)).toISOString().replace('.000Z', 'Z')
}

/** The first few of a list, and how many more there are. */
export function firstFew(texts: readonly string[], few: number, separator: string): string {
  const left = texts.length - few
  return [...texts.slice(0, few), ...(left > 0 ? [`${left} more`] : [])].join(separator)
}
