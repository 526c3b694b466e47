import { isoTime } from '../core/plain-text.js'

/** What a time axis shows, unix seconds; it ends after it starts. */
export interface Span {
  readonly startSeconds: number
  readonly endSeconds: number
}

export interface Tick {
  /** Since the start. */
  readonly seconds: number
  /** Since the start, and as UTC. */
  readonly label: readonly [string, string]
}

/** A report without an end, or of one moment, still gets an axis. */
export function spanOf({ startSeconds, endSeconds }: Span): Span {
  return { startSeconds, endSeconds: Math.max(endSeconds, startSeconds + 1) }
}

const MINUTE = 60
const HOUR = 3600
const DAY = 86_400

/** Round to people, in seconds. */
const STEPS = [
  ...[1, 2, 5, 10, 15, 30],
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE),
  ...[1, 2, 3, 6, 12].map((hours) => hours * HOUR),
]

/** Up to here an axis counts seconds, then hours up to the next, then days. */
const MAX_IN_SECONDS = 3 * HOUR
const MAX_IN_HOURS = 3 * DAY

export function ticksOf(span: Span, atMost: number): readonly Tick[] {
  const seconds = span.endSeconds - span.startSeconds
  const step = STEPS.find((candidate) => seconds / candidate <= atMost) ?? DAY * Math.ceil(seconds / DAY / atMost)
  const isLong = seconds > DAY
  const inMinutes = isLong || (step % MINUTE === 0 && span.startSeconds % MINUTE === 0)
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => {
    const since = i * step
    const utc = isoTime(Math.round(span.startSeconds + since))
    const time = inMinutes ? utc.slice(11, 16) : utc.slice(11, 19)
    return { seconds: since, label: [inUnit(since, seconds), isLong ? `${utc.slice(5, 10)} ${time}` : time] }
  })
}

function inUnit(since: number, spanSeconds: number): string {
  if (spanSeconds <= MAX_IN_SECONDS) return `${since} s`
  return spanSeconds <= MAX_IN_HOURS ? `${since / HOUR} h` : `${since / DAY} d`
}

/** UTC to the second. */
export function utcOf(seconds: number): string {
  return isoTime(Math.round(seconds)).replace('T', ' ')
}

/** Seconds since the start, with its sign, to a tenth. */
export function sinceStart(seconds: number, { startSeconds }: Pick<Span, 'startSeconds'>): string {
  const since = Math.round(10 * (seconds - startSeconds)) / 10
  return `${since < 0 ? '−' : '+'}${Math.abs(since)} s`
}
