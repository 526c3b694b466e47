import type { Clock } from '../../src/io/clock.js'

export interface ManualClock extends Clock {
  /** Moves time and wakes who is due; resolves when the code under test has had its say. */
  advance(ms: number): Promise<void>
  /** Resolves when the code under test sleeps. */
  asleep(): Promise<void>
}

/** Virtual time: nothing waits, everything is a decision of the test. */
export function manualClock(startMs = 1_700_000_000_000): ManualClock {
  let nowMs = startMs
  const sleepers = new Set<{ readonly wakeMs: number; readonly wake: () => void }>()
  /** Long enough for every promise that is already resolved to have its say. */
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 25; i++) await new Promise((resolve) => setImmediate(resolve))
  }
  const asleep = async (): Promise<void> => {
    for (let i = 0; sleepers.size === 0; i++) {
      if (i > 100_000) throw new Error('the code under test never sleeps')
      await new Promise((resolve) => setImmediate(resolve))
    }
    await settle()
  }
  return {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs - startMs,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) {
          resolve()
          return
        }
        const sleeper = {
          wakeMs: nowMs + ms,
          wake: () => {
            sleepers.delete(sleeper)
            signal.removeEventListener('abort', sleeper.wake)
            resolve()
          },
        }
        sleepers.add(sleeper)
        signal.addEventListener('abort', sleeper.wake, { once: true })
      }),
    advance: async (ms) => {
      nowMs += ms
      const due = [...sleepers].filter(({ wakeMs }) => wakeMs <= nowMs)
      for (const { wake } of due) wake()
      await settle()
    },
    asleep,
  }
}
