import { Cron } from 'croner'

/** A time in which incidents are expected: they are computed, shown and logged, not sent. All times by Prometheus's clock. */
export type MaintenanceWindow = OneWindow | RecurringWindow

/** [startSeconds, endSeconds), unix seconds. */
export interface OneWindow {
  readonly kind: 'once'
  readonly startSeconds: number
  readonly endSeconds: number
  readonly reason: string
}

/** From each start of the schedule for durationSeconds, but never at or after untilSeconds. */
export interface RecurringWindow {
  readonly kind: 'recurring'
  readonly schedule: Schedule
  readonly durationSeconds: number
  readonly untilSeconds: number
  readonly reason: string
}

export interface Schedule {
  /** The cron expression it was made of. */
  readonly text: string
  /** The first start after that time, unix seconds; null when there is none. */
  readonly firstAfter: (seconds: number) => number | null
}

/**
 * A cron expression of five fields, in UTC; day of month and day of week together mean either, as in crontab.
 *
 * @throws {RangeError} saying what is wrong with it
 */
export function cronSchedule(text: string): Schedule {
  let cron: Cron
  try {
    cron = new Cron(text, { mode: '5-part', timezone: 'UTC' })
  } catch (error) {
    throw new RangeError((error as Error).message.replace(/^CronPattern: /, ''), { cause: error })
  }
  return {
    text,
    // Without a time of its own croner would ask the clock.
    firstAfter: (seconds) => {
      const start = cron.nextRun(new Date(seconds * 1000))
      return start === null ? null : start.getTime() / 1000
    },
  }
}

/** Why an incident is expected at that time, unix seconds: the reason of the first window it lies in, or null. */
export function maintenanceAt(windows: readonly MaintenanceWindow[], timestampSeconds: number): string | null {
  return windows.find((window) => holds(window, timestampSeconds))?.reason ?? null
}

function holds(window: MaintenanceWindow, seconds: number): boolean {
  switch (window.kind) {
    case 'once':
      return seconds >= window.startSeconds && seconds < window.endSeconds
    case 'recurring': {
      if (seconds >= window.untilSeconds) return false
      // One that began at or before `seconds` - duration is over.
      const start = window.schedule.firstAfter(seconds - window.durationSeconds)
      return start !== null && start <= seconds
    }
  }
}
