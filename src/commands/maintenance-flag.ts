import { UsageError } from '../core/errors.js'
import { cronSchedule, type MaintenanceWindow, type Schedule } from '../core/maintenance.js'
import { duration } from './flags.js'

export const MAINTENANCE_FORM = `START/END=REASON or 'CRON for DURATION until END=REASON'`

const EXAMPLES =
  `2026-11-21T22:00:00Z/2026-11-22T02:00:00Z=database upgrade` +
  ` or '0 2 * * 6 for 2h until 2027-01-01T00:00:00Z=weekly batch'`

const INSTANT = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/

/** The reason is shown in logs and on pages. */
const MAX_REASON_LENGTH = 200

/**
 * A maintenance window: an absolute one, or one that recurs in UTC. Both have an end, so that no silence is for ever.
 *
 * @throws {UsageError} naming the flag, what was expected and what came
 */
export function maintenanceFlag(text: string, name: string): MaintenanceWindow {
  const refuse = (reason: string): never => {
    throw new UsageError(
      `${name} must be ${MAINTENANCE_FORM}, as in ${EXAMPLES}; ${reason}, got ${JSON.stringify(text)}`,
    )
  }
  const separator = text.indexOf('=')
  if (separator < 0) return refuse('the reason is missing')
  const when = text.slice(0, separator).trim()
  const reason = text.slice(separator + 1).trim()
  if (reason === '') return refuse('the reason is missing')
  if (reason.length > MAX_REASON_LENGTH) return refuse(`the reason is longer than ${MAX_REASON_LENGTH} characters`)
  const instant = (what: string, instantText: string): number =>
    instantSeconds(instantText) ??
    refuse(`the ${what} must be a time with its zone, such as 2026-11-21T22:00:00Z or 2026-11-21T23:00:00+01:00`)

  const [, cron, span, until] = /^(.+) for (\S+) until (\S+)$/.exec(when) ?? []
  if (cron !== undefined && span !== undefined && until !== undefined) {
    const untilSeconds = instant('end after "until"', until)
    const schedule = scheduleOf(cron.trim(), refuse)
    return {
      kind: 'recurring',
      schedule,
      durationSeconds: duration(span, `${name} ${JSON.stringify(text)}: the duration after "for"`).seconds,
      untilSeconds,
      reason,
    }
  }
  const [start, end, ...more] = when.split('/')
  if (start === undefined || end === undefined || more.length > 0 || when.includes(' ')) {
    return refuse(/\bfor\b/.test(when) ? 'the end after "until" is missing' : 'an end is missing')
  }
  const startSeconds = instant('start', start)
  const endSeconds = instant('end', end)
  if (endSeconds <= startSeconds) return refuse('the end must be after the start')
  return { kind: 'once', startSeconds, endSeconds, reason }
}

function scheduleOf(text: string, refuse: (reason: string) => never): Schedule {
  let schedule: Schedule
  try {
    schedule = cronSchedule(text)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return refuse(`the cron expression is wrong: ${error.message}`)
  }
  return schedule.firstAfter(0) === null ? refuse('the cron expression names a day that never comes') : schedule
}

/** Unix seconds of an RFC 3339 time; null when it is none, or a day that does not exist. */
function instantSeconds(text: string): number | null {
  const [, year, month, day] = INSTANT.exec(text) ?? []
  const milliseconds = Date.parse(text)
  // Date.parse reads the 30th of February as the 2nd of March.
  const days = new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate()
  return year === undefined || Number.isNaN(milliseconds) || Number(day) > days ? null : milliseconds / 1000
}
