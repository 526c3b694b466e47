import assert from 'node:assert/strict'
import test from 'node:test'

import { type Clock, systemClock } from '../src/io/clock.js'
import { runDaemon } from '../src/io/daemon.js'
import { manualClock, type ManualClock } from './helpers/manual-clock.js'

interface Daemon {
  readonly clock: ManualClock
  /** Milliseconds since the start at which each tick began. */
  readonly tickedAtMs: readonly number[]
  readonly skipped: readonly number[]
  readonly stop: AbortController
  readonly stopped: Promise<void>
}

const INTERVAL_MS = 15_000

/** @param tick - what a tick does after it was noted; it may sleep on the clock */
function startDaemon(
  tick: (clock: ManualClock, signal: AbortSignal) => Promise<void> = () => Promise.resolve(),
): Daemon {
  const clock = manualClock()
  const stop = new AbortController()
  const tickedAtMs: number[] = []
  const skipped: number[] = []
  const stopped = runDaemon({
    intervalMs: INTERVAL_MS,
    clock,
    signal: stop.signal,
    onSkipped: (slots) => skipped.push(slots),
    tick: () => {
      tickedAtMs.push(clock.monotonicMs())
      return tick(clock, stop.signal)
    },
  })
  return { clock, tickedAtMs, skipped, stop, stopped }
}

test('daemon: it ticks at once and then in every slot', async () => {
  const { clock, tickedAtMs, skipped, stop, stopped } = startDaemon()
  await clock.asleep()
  for (let i = 0; i < 3; i++) await clock.advance(INTERVAL_MS)
  assert.deepEqual(tickedAtMs, [0, 15_000, 30_000, 45_000])
  assert.deepEqual(skipped, [])
  stop.abort()
  await stopped
})

test('daemon: a tick that takes its time does not push the slots back', async () => {
  const { clock, tickedAtMs, skipped, stop, stopped } = startDaemon((its, signal) => its.sleep(4_000, signal))
  await clock.asleep()
  for (let i = 0; i < 3; i++) {
    await clock.advance(4_000)
    await clock.advance(11_000)
  }
  assert.deepEqual(tickedAtMs, [0, 15_000, 30_000, 45_000])
  assert.deepEqual(skipped, [])
  stop.abort()
  await stopped
})

test('daemon: a slow tick skips the slots it missed, and they are counted', async () => {
  const durationsMs = [40_000, 0, 15_000, 0]
  const { clock, tickedAtMs, skipped, stop, stopped } = startDaemon((its, signal) =>
    its.sleep(durationsMs.shift() ?? 0, signal),
  )
  await clock.asleep()
  await clock.advance(40_000) // over at 40 s: slots 15 and 30 are gone
  await clock.advance(5_000) // the slot at 45 s: a tick of no length
  await clock.advance(0)
  await clock.advance(15_000) // the slot at 60 s: a tick that ends exactly in the next slot
  await clock.advance(15_000) // over at 75 s, which has begun: the next slot is at 90 s
  await clock.advance(15_000)
  assert.deepEqual(tickedAtMs, [0, 45_000, 60_000, 90_000])
  assert.deepEqual(skipped, [2, 1])
  stop.abort()
  await stopped
})

test('daemon: a process that was suspended ticks once and not once for every slot it slept through', async () => {
  const { clock, tickedAtMs, skipped, stop, stopped } = startDaemon()
  await clock.asleep()
  await clock.advance(3_600_000)
  await clock.advance(INTERVAL_MS)
  assert.deepEqual(tickedAtMs, [0, 3_600_000, 3_615_000])
  assert.deepEqual(skipped, [239])
  stop.abort()
  await stopped
})

test('daemon: a stop while it sleeps ends it without another tick', async () => {
  const { clock, tickedAtMs, stop, stopped } = startDaemon()
  await clock.asleep()
  stop.abort()
  await stopped
  assert.deepEqual(tickedAtMs, [0])
})

test('daemon: a stop during a tick lets the tick end and starts no other', async () => {
  let ended = 0
  const { clock, tickedAtMs, stop, stopped } = startDaemon(async (its, signal) => {
    await its.sleep(4_000, signal)
    ended++
  })
  await clock.asleep()
  stop.abort()
  await stopped
  assert.deepEqual([tickedAtMs, ended], [[0], 1])
})

test('daemon: what a tick throws ends it, with that very error', async () => {
  const bug = new Error('a bug')
  const { tickedAtMs, stopped } = startDaemon(() => Promise.reject(bug))
  await assert.rejects(stopped, (error: unknown) => error === bug)
  assert.deepEqual(tickedAtMs, [0])
})

test('daemon: it does not tick when it was stopped before it began', async () => {
  const clock = manualClock()
  let ticks = 0
  const tick = (): Promise<void> => {
    ticks++
    return Promise.resolve()
  }
  await runDaemon({ intervalMs: 1, clock, signal: AbortSignal.abort(), tick })
  assert.equal(ticks, 0)
})

test('clock: a sleep ends early when it is aborted, and never rejects', async () => {
  const stop = new AbortController()
  const slept = systemClock.sleep(3_600_000, stop.signal)
  stop.abort()
  await slept
  await systemClock.sleep(3_600_000, AbortSignal.abort())
  await systemClock.sleep(-5, new AbortController().signal)
})

test('daemon: a timer that fires a little early does not make two ticks of one slot', async () => {
  // setTimeout drops fractions of a millisecond: 48 ticks in 30 slots of 100 ms were seen.
  const clock = manualClock()
  const stop = new AbortController()
  const tickedAtMs: number[] = []
  const early: Clock = { ...clock, sleep: (ms, signal) => clock.sleep(Math.max(0, ms - 1), signal) }
  const tick = (): Promise<void> => {
    tickedAtMs.push(clock.monotonicMs())
    return Promise.resolve()
  }
  const stopped = runDaemon({ intervalMs: INTERVAL_MS, clock: early, signal: stop.signal, tick })
  await clock.asleep()
  await clock.advance(INTERVAL_MS - 1)
  await clock.advance(1)
  await clock.advance(INTERVAL_MS - 1)
  assert.deepEqual(tickedAtMs, [0, INTERVAL_MS - 1, 2 * INTERVAL_MS - 1])
  stop.abort()
  await stopped
})
