import type { Runtime } from './runtime.js'

export interface TroubleLog {
  /** @param outcome - what it came to; `ok` for success */
  note(result: { readonly outcome: string; readonly detail: string }): void
}

const SUMMARY_EVERY_MS = 60_000

/** What is answered with a warning is used all the same. */
function verbFor(outcome: string): string {
  return outcome === 'warnings' ? 'come with warnings' : 'fail'
}

/**
 * A fault that repeats is logged when it begins, when it changes, once a minute meanwhile, and when it is over.
 *
 * @param subject - what fails or succeeds, a plural: `polls`
 * @param fields - what every line says besides
 */
export function createTroubleLog(
  { clock, logger }: Pick<Runtime, 'clock' | 'logger'>,
  { subject, fields = {} }: { readonly subject: string; readonly fields?: Readonly<Record<string, string>> },
): TroubleLog {
  let current = 'ok'
  let count = 0
  let loggedMs = 0
  return {
    note: ({ outcome, detail }) => {
      const nowMs = clock.monotonicMs()
      const good = outcome === 'ok'
      if (outcome !== current) {
        if (good) logger.info({ ...fields, outcome: current, [subject]: count }, `${subject} succeed again`)
        else logger.warn({ ...fields, outcome, detail }, `${subject} ${verbFor(outcome)}`)
        current = outcome
        count = 0
        loggedMs = nowMs
      } else if (!good && nowMs - loggedMs >= SUMMARY_EVERY_MS) {
        logger.warn({ ...fields, outcome, detail, [subject]: count }, `${subject} still ${verbFor(outcome)}`)
        loggedMs = nowMs
      }
      count++
    },
  }
}
