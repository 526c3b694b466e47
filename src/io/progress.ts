import type { HistoryProgress } from './range-history.js'
import type { Runtime } from './runtime.js'

/** How far a long fetch of several pairs has come: a bar on a terminal, a log line now and then elsewhere. */
export interface Progress {
  /** @param pairIndex - which of the pairs is being fetched */
  readonly update: (pairIndex: number, progress: HistoryProgress) => Promise<void>
  /** Takes the bar away, so that what is said next stands on a line of its own. */
  readonly end: () => Promise<void>
}

const LINE_EVERY_MS = 5_000
const BAR_WIDTH = 20
const CLEAR_LINE = '\r\u001b[K'

/** Shows a text on the terminal. Whoever closed it did not ask for the work to fail: what cannot be shown is not. */
export async function show({ stdout }: Pick<Runtime, 'stdout'>, text: string): Promise<void> {
  await stdout.write(text).catch(() => undefined)
}

export function createProgress(runtime: Runtime, pairCount: number): Progress {
  const { clock, logger, stdout } = runtime
  const startMs = clock.monotonicMs()
  let firstDone: number | undefined
  let lastLineMs = startMs
  return {
    update: async (pairIndex, { donePoints, totalPoints, doneChunks, totalChunks }) => {
      const nowMs = clock.monotonicMs()
      const done = (pairIndex + donePoints / totalPoints) / pairCount
      // What an earlier run had fetched says nothing of how fast this one is.
      firstDone ??= done
      const fetched = done - firstDone
      const leftSeconds = fetched > 0 ? ((nowMs - startMs) / 1000 / fetched) * (1 - done) : null
      const percent = Math.floor(100 * done)
      if (stdout.isTerminal) {
        const filled = Math.floor(BAR_WIDTH * done)
        const bar = `[${'#'.repeat(filled)}${'-'.repeat(BAR_WIDTH - filled)}] ${String(percent).padStart(3)} %`
        const pair = pairCount === 1 ? '' : `  pair ${pairIndex + 1}/${pairCount}`
        const left = leftSeconds === null || done === 1 ? '' : `  ${clockTime(leftSeconds)} left`
        // The cursor waits at the line's start: a log line, written by someone else, covers the bar and begins no line with it.
        await show(runtime, `${CLEAR_LINE}${bar}${pair}  ${doneChunks}/${totalChunks} chunks${left}\r`)
        return
      }
      if (nowMs - lastLineMs < LINE_EVERY_MS || done === 1) return
      lastLineMs = nowMs
      logger.info(
        {
          percent,
          chunk: `${doneChunks}/${totalChunks}`,
          ...(pairCount === 1 ? {} : { pair: `${pairIndex + 1}/${pairCount}` }),
          secondsLeft: leftSeconds === null ? null : Math.round(leftSeconds),
        },
        'recording',
      )
    },
    end: () => (stdout.isTerminal ? show(runtime, CLEAR_LINE) : Promise.resolve()),
  }
}

/** 1:05:07, or 0:42 below an hour. */
function clockTime(seconds: number): string {
  const whole = Math.ceil(seconds)
  const [hours, minutes, rest] = [Math.floor(whole / 3_600), Math.floor(whole / 60) % 60, whole % 60]
  const tail = String(rest).padStart(2, '0')
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${tail}` : `${minutes}:${tail}`
}
