import { type Pair, parseServiceName } from '../core/pair.js'
import { UsageError } from '../core/errors.js'

/**
 * One command-line flag. The text comes from the command line, else from the environment, else from `defaultText`; it is
 * parsed by `parse`, which throws a UsageError naming `name`. Defaults are written here and nowhere else.
 */
export interface Flag<T> {
  readonly describe: string
  readonly defaultText?: string
  readonly required?: true
  readonly many?: true
  readonly toggle?: true
  /** @param texts - what was given: one text, several for a repeatable flag, none when the flag is absent */
  readonly read: (texts: readonly string[], name: string) => T
}

export type Flags = Readonly<Record<string, Flag<unknown>>>
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never }
type Parse<T> = (text: string, name: string) => T

function single(texts: readonly string[], name: string): string | undefined {
  if (texts.length > 1) throw new UsageError(`${name} must be given once, got it ${texts.length} times`)
  return texts[0]
}

export function required<T>(parse: Parse<T>, describe: string): Flag<T> {
  return {
    describe,
    required: true,
    read: (texts, name) => {
      const text = single(texts, name)
      if (text === undefined) throw new UsageError(`${name} is required: ${describe}`)
      return parse(text, name)
    },
  }
}

export function withDefault<T>(parse: Parse<T>, defaultText: string, describe: string): Flag<T> {
  return { describe, defaultText, read: (texts, name) => parse(single(texts, name) ?? defaultText, name) }
}

export function optional<T>(parse: Parse<T>, describe: string): Flag<T | undefined> {
  return {
    describe,
    read: (texts, name) => {
      const text = single(texts, name)
      return text === undefined ? undefined : parse(text, name)
    },
  }
}

export function repeatable<T>(parse: Parse<T>, describe: string): Flag<readonly T[]> {
  return { describe, many: true, read: (texts, name) => texts.map((text) => parse(text, name)) }
}

/** A flag each text of which is several values; all of them, in the order in which they were given. */
export function repeatableLists<T>(parse: Parse<readonly T[]>, describe: string): Flag<readonly T[]> {
  return { describe, many: true, read: (texts, name) => texts.flatMap((text) => parse(text, name)) }
}

export function toggle(describe: string): Flag<boolean> {
  return {
    describe,
    toggle: true,
    read: (texts, name) => {
      const text = single(texts, name) ?? 'false'
      if (text !== 'true' && text !== 'false')
        throw new UsageError(`${name} must be true or false, got ${JSON.stringify(text)}`)
      return text === 'true'
    },
  }
}

/** What was given for each flag, and under which name: the flag's own or an environment variable's. */
export type Given = ReadonlyMap<string, { readonly texts: readonly string[]; readonly name: string }>

/** Every flag of a command, read and checked. @throws {UsageError} for the first that is wrong */
export function readFlags<F extends Flags>(flags: F, given: Given): Values<F> {
  const values: Record<string, unknown> = {}
  for (const [name, flag] of Object.entries(flags)) {
    const found = given.get(name) ?? { texts: [], name: `--${name}` }
    values[name] = flag.read(found.texts, found.name)
  }
  return values as Values<F>
}

/** Decimal notation only: no hexadecimal, no blanks, no empty text that reads as 0. NaN when it is none. */
function decimal(text: string): number {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN
}

/** A finite number in (`above`, `atMost`]. */
export function numberAbove(above: number, atMost = Number.MAX_VALUE): Parse<number> {
  return (text, name) => {
    const value = decimal(text)
    if (!(value > above && value <= atMost)) {
      const limit = atMost === Number.MAX_VALUE ? '' : ` and at most ${atMost}`
      throw new UsageError(
        `${name} must be a ${above === 0 ? 'positive number' : `number above ${above}`}${limit}, got ${JSON.stringify(text)}`,
      )
    }
    return value
  }
}

/** A finite number in [`atLeast`, `atMost`]. */
export function numberFrom(atLeast: number, atMost = Number.MAX_VALUE): Parse<number> {
  return (text, name) => {
    const value = decimal(text)
    if (!(value >= atLeast && value <= atMost)) {
      const limit = atMost === Number.MAX_VALUE ? `of at least ${atLeast}` : `from ${atLeast} to ${atMost}`
      throw new UsageError(`${name} must be a number ${limit}, got ${JSON.stringify(text)}`)
    }
    return value
  }
}

export function integerFrom(atLeast: number, atMost: number): Parse<number> {
  return (text, name) => {
    const value = decimal(text)
    if (!(Number.isInteger(value) && value >= atLeast && value <= atMost)) {
      throw new UsageError(`${name} must be a whole number from ${atLeast} to ${atMost}, got ${JSON.stringify(text)}`)
    }
    return value
  }
}

/** A port to listen on; 0 lets the system choose one. */
export const port: Parse<number> = integerFrom(0, 65_535)

/** Seconds between polls: at least 0.1 s, at most a day (setTimeout wraps at 24.8 days). */
export const intervalSeconds: Parse<number> = numberFrom(0.1, 86_400)

export function oneOf<const T extends string>(...allowed: readonly T[]): Parse<T> {
  return (text, name) => {
    const found = allowed.find((value) => value === text)
    if (found === undefined)
      throw new UsageError(`${name} must be one of ${allowed.join(', ')}, got ${JSON.stringify(text)}`)
    return found
  }
}

export const anyText: Parse<string> = (text, name) => {
  if (text.trim() === '') throw new UsageError(`${name} must not be empty`)
  return text
}

export const serviceName: Parse<string> = parseServiceName

/** SOURCE:DESTINATION. */
export const pairOfServices: Parse<Pair> = (text, name) => {
  const [source = '', destination, ...others] = text.split(':')
  if (destination === undefined || others.length > 0) {
    throw new UsageError(`${name} must be SOURCE:DESTINATION, got ${JSON.stringify(text)}`)
  }
  return {
    source: parseServiceName(source, `${name} ${JSON.stringify(text)}: the source`),
    destination: parseServiceName(destination, `${name} ${JSON.stringify(text)}: the destination`),
  }
}

/** A Prometheus label name. */
export const labelName: Parse<string> = (text, name) => {
  if (!/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(text)) {
    throw new UsageError(`${name} must be a Prometheus label name (letters, digits, _), got ${JSON.stringify(text)}`)
  }
  return text
}

const DURATION_SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }

export interface PromDuration {
  /** As Prometheus reads it, for example 1m30s. */
  readonly text: string
  readonly seconds: number
}

/** A positive Prometheus duration such as 15s, 1m or 1h30m. */
export const duration: Parse<PromDuration> = (text, name) => {
  const seconds = durationSeconds(text)
  if (!(seconds > 0)) {
    throw new UsageError(`${name} must be a Prometheus duration such as 15s, 1m or 1h30m, got ${JSON.stringify(text)}`)
  }
  return { text, seconds }
}

/** NaN when the text is none. */
function durationSeconds(text: string): number {
  if (!/^((\d+)w)?((\d+)d)?((\d+)h)?((\d+)m)?((\d+)s)?((\d+)ms)?$/.test(text)) return NaN
  let seconds = 0
  for (const [, amount, unit] of text.matchAll(/(\d+)(ms|[smhdw])/g)) {
    seconds += Number(amount) * (DURATION_SECONDS[unit ?? ''] ?? NaN)
  }
  return seconds
}

/** A point in time: unix seconds, of the current time in unix seconds. Only a relative one moves with the current time. */
export type Time = (nowSeconds: number) => number

/** Unix seconds, an RFC 3339 time, `now`, or a time before now as a Prometheus duration such as -7d. */
export const timeFlag: Parse<Time> = (text, name) => {
  const ago = text === 'now' ? 0 : text.startsWith('-') ? durationSeconds(text.slice(1)) : NaN
  if (text === 'now' || ago > 0) return (nowSeconds) => nowSeconds - ago
  const seconds = /^\d{10}(\.\d+)?$/.test(text) ? Number(text) : rfc3339Seconds(text)
  if (Number.isNaN(seconds)) {
    throw new UsageError(
      `${name} must be a time: unix seconds, RFC 3339 such as 2026-01-31T12:00:00Z, now, or before now such as -7d, got ${JSON.stringify(text)}`,
    )
  }
  return () => seconds
}

/** NaN when the text is none: one without a zone, or a day that its month does not have. */
function rfc3339Seconds(text: string): number {
  const [, year, month, day] =
    /^(\d{4})-(\d\d)-(\d\d)[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/.exec(text)?.map(Number) ?? []
  if (year === undefined || month === undefined || day === undefined) return NaN
  // Date.parse takes February 30th for March 2nd.
  return day <= new Date(Date.UTC(year, month, 0)).getUTCDate() ? Date.parse(text) / 1000 : NaN
}

/** An http or https URL without credentials, query or fragment; trailing slashes are dropped so that paths can be added. */
export const httpUrl: Parse<string> = (text, name) => {
  const expected = `${name} must be an http or https URL such as http://prometheus.istio-system:9090`
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new UsageError(`${expected}, got ${JSON.stringify(withoutSecrets(text))}`)
  }
  if (url.username !== '' || url.password !== '') throw new UsageError(`${expected}, got one with credentials in it`)
  if ((url.protocol !== 'http:' && url.protocol !== 'https:') || url.search !== '' || url.hash !== '') {
    throw new UsageError(`${expected}, got ${JSON.stringify(withoutSecrets(text))}`)
  }
  return url.href.replace(/\/+$/, '')
}

/** A URL, or what was meant to be one, without the parts in which people put passwords and tokens. */
function withoutSecrets(text: string): string {
  return text.replace(/^.*@/s, '...@').replace(/[?#].*$/s, '?...')
}

/** Quantiles separated by commas, each strictly between 0 and 1, none twice. */
export const quantiles: Parse<readonly number[]> = (text, name) => {
  const values = text.split(',').map((part) => quantile(part.trim(), name))
  if (new Set(values).size < values.length)
    throw new UsageError(`${name} names a quantile twice, got ${JSON.stringify(text)}`)
  return values
}

/** A quantile, strictly between 0 and 1. */
export const quantile: Parse<number> = (text, name) => {
  const value = decimal(text)
  if (!(value > 0 && value < 1)) {
    throw new UsageError(`${name} must be a quantile between 0 and 1 such as 0.5, got ${JSON.stringify(text)}`)
  }
  return value
}
