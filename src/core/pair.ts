import { UsageError } from './errors.js'

/** An edge of the mesh: requests from `source` to `destination`, by the names Istio's labels carry. */
export interface Pair {
  readonly source: string
  readonly destination: string
}

/** Istio label values that are service names: letters, digits and a few marks. Quotes, braces, commas and blanks are typos. */
const SERVICE_NAME = /^[\p{L}\p{N}_.:/@-]{1,253}$/u

/** @throws {UsageError} naming `what` (a flag) when the text cannot be a service name */
export function parseServiceName(text: string, what: string): string {
  if (!SERVICE_NAME.test(text)) {
    throw new UsageError(
      `${what} must be a service name (1 to 253 letters, digits or any of _ . : / @ -), got ${JSON.stringify(text)}`,
    )
  }
  return text
}

/** An unambiguous key for maps: `a,b` to `c` is not `a` to `b,c`. */
export function pairKey({ source, destination }: Pair): string {
  return JSON.stringify([source, destination])
}

/** For people: log lines, tables, messages. */
export function pairName({ source, destination }: Pair): string {
  return `${source} -> ${destination}`
}
