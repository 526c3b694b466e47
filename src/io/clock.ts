import { setTimeout as delay } from 'node:timers/promises'

export interface Clock {
  /** Wall clock, milliseconds since the epoch: for timestamps that people read. */
  nowMs(): number
  /** Never goes back, origin arbitrary, milliseconds: for slots, deadlines and durations. */
  monotonicMs(): number
  /** Resolves after `ms`, or early when `signal` aborts. Never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    try {
      await delay(Math.max(0, ms), undefined, { signal })
    } catch (error) {
      if (!signal.aborted) throw error
    }
  },
}
