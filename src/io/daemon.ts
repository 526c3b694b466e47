import type { Clock } from './clock.js'

export interface DaemonOptions {
  readonly intervalMs: number
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Called once a slot, never while an earlier call runs. What it throws ends the daemon: it is a bug, not weather. */
  readonly tick: () => Promise<void>
  /** Slots that passed while a tick was running. They are skipped, not made up for. */
  readonly onSkipped?: (slots: number) => void
}

/**
 * Calls `tick` in fixed slots, start + k * interval, until `signal` aborts. Fixed slots and not a fixed delay: what is
 * counted per poll must not slow down because Prometheus did.
 */
export async function runDaemon({ intervalMs, clock, signal, tick, onSkipped }: DaemonOptions): Promise<void> {
  const startMs = clock.monotonicMs()
  let slot = 0
  while (!signal.aborted) {
    await tick()
    // A timer may fire a fraction of a millisecond early: the slot that was just done never comes again.
    const next = Math.max(slot + 1, Math.floor((clock.monotonicMs() - startMs) / intervalMs) + 1)
    if (next > slot + 1) onSkipped?.(next - slot - 1)
    slot = next
    await clock.sleep(startMs + slot * intervalMs - clock.monotonicMs(), signal)
  }
}
