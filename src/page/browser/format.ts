import type { Pair } from '../../core/pair.js'

const DIGITS = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 })
const TIME = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
})
const SHORT_TIME = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })
const DATE = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })

export function number(value: number | null): string {
  return value === null ? '–' : DIGITS.format(value)
}

export function milliseconds(value: number | null): string {
  if (value === null) return '–'
  return value >= 10_000 ? `${number(value / 1000)} s` : `${number(value)} ms`
}

export function band(minMs: number, maxMs: number): string {
  return `${number(minMs)} – ${milliseconds(maxMs)}`
}

export function quantileName(quantile: number): string {
  return `p${number(100 * quantile)}`
}

export function pairName({ source, destination }: Pair): string {
  return `${source} → ${destination}`
}

/** Every digit, as of a count. */
export function whole(n: number): string {
  return n.toLocaleString('en')
}

export function count(n: number, noun: string): string {
  return `${whole(n)} ${noun}${n === 1 ? '' : 's'}`
}

/** A length of time in two units at most. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole} s`
  const [units, perUnit, small] =
    whole < 3600
      ? ([`min`, 60, 's'] as const)
      : whole < 86_400
        ? (['h', 3600, 'min'] as const)
        : (['d', 86_400, 'h'] as const)
  const rest = Math.floor((whole % perUnit) / (perUnit === 86_400 ? 3600 : perUnit / 60))
  return `${Math.floor(whole / perUnit)} ${units}${rest === 0 ? '' : ` ${rest} ${small}`}`
}

/** In the reader's own time zone, with the day when it is another one. */
export function time(seconds: number): string {
  const date = new Date(seconds * 1000)
  const clock = TIME.format(date)
  return date.toDateString() === new Date().toDateString() ? clock : `${DATE.format(date)} ${clock}`
}

export function shortTime(seconds: number): string {
  return SHORT_TIME.format(new Date(seconds * 1000))
}
