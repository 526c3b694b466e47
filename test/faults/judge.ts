import assert from 'node:assert/strict'

import { MONITOR_GAUGES, SELF_METRICS } from '../../src/core/metric-names.js'
import type { PollOutcome } from '../../src/core/reading.js'
import type { Verdict } from '../../src/core/score.js'
import { INCIDENT } from '../../src/io/log.js'
import type { LogEvent } from '../../src/testbed/child-process.js'
import { type Lane, POLL_SECONDS, SECRETS, series } from './bench.js'
import { type Daemon, PATIENCE_MS, until } from './daemon.js'
import { CALM_EDGE } from './exporter.js'
import type { Asker, Fault } from './fault-proxy.js'

export interface Expected {
  readonly outcome: PollOutcome
  /** Of the monitor, while the fault lasts; no_data unless said. */
  readonly verdict?: Verdict
  /** What the line of the log says of it. */
  readonly detail?: RegExp
}

/** Something done to a lane, and undone. */
export interface Interference {
  readonly begin: (lane: Lane) => void | Promise<void>
  readonly end: (lane: Lane) => void | Promise<void>
}

/** A fault on the way to Prometheus; a daemon for which nothing is expected does not meet it. */
export interface ConnectionFault {
  readonly fault: Fault | 'refuse' | Interference
  readonly monitor?: Expected
  readonly incident?: Expected
  /** How many of the first polls afterwards may be refused: what they know of the past may make them wary. */
  readonly wary?: number
  /** What a poll may come to as well, in place of what is expected. */
  readonly tolerated?: readonly PollOutcome[]
  /** Lines besides that one on the change, which may come of it. */
  readonly mayTell?: readonly string[]
  /** Lines that sum up a fault that lasts. */
  readonly summary?: number
  /** Looks at more, while the fault lasts. */
  readonly also?: (lane: Lane) => void | Promise<void>
}

type Metrics = ReadonlyMap<string, number>

const USED: ReadonlySet<PollOutcome> = new Set(['ok', 'warnings'])
const PERIOD_MS = POLL_SECONDS * 1000
/** What a busy machine may add to a period. */
const SLACK_MS = 500
/** Polls that must meet the fault before it is judged. */
const POLLS = 2

function outcomes(metrics: Metrics): Readonly<Record<string, number>> {
  const prefix = `${SELF_METRICS.polls.name}{outcome="`
  return Object.fromEntries(
    [...metrics].flatMap(([name, value]) => (name.startsWith(prefix) ? [[name.slice(prefix.length, -2), value]] : [])),
  )
}

/** What outcomes there were between two looks, and how many of each. */
export function risen(before: Metrics, after: Metrics): Readonly<Record<string, number>> {
  const [from, to] = [outcomes(before), outcomes(after)]
  return Object.fromEntries(
    Object.entries(to).flatMap(([name, value]) =>
      value > (from[name] ?? 0) ? [[name, value - (from[name] ?? 0)]] : [],
    ),
  )
}

/** All that a daemon says of the mesh. */
export function facts(metrics: Metrics): Readonly<Record<string, number>> {
  return Object.fromEntries([...metrics].filter(([name]) => name.startsWith('lab7_')))
}

const anomalies = series('lab7_anomalies_total', CALM_EDGE)

/** Rule R1: a poll without a sample leaves nothing but the verdict, and finds no anomaly. */
export function assertNothingInvented(
  metrics: Metrics,
  { outcome, verdict = 'no_data' }: Expected,
  anomaliesBefore: number | undefined,
): void {
  const { source, destination } = CALM_EDGE
  const held = (one: string): number | undefined =>
    metrics.get(`lab7_verdict{source="${source}",destination="${destination}",verdict="${one}"}`)
  assert.deepEqual(
    MONITOR_GAUGES.verdict.values.filter((one) => held(one) === 1),
    [verdict],
    'verdict of the monitor',
  )
  // Where there is no latency, the rate may be known all the same.
  const known = [
    'lab7_verdict',
    'lab7_anomalies_total',
    ...(outcome === 'nonfinite' ? ['lab7_requests_per_second'] : []),
  ]
  const more = Object.keys(facts(metrics)).filter((name) => !known.some((one) => name.startsWith(one)))
  assert.deepEqual(more, [], 'gauges without a measurement')
  assert.equal(metrics.get(anomalies), anomaliesBefore, 'anomalies of the monitor')
}

/** A good sample of the calm edge is what the gauges say. */
export function assertCalm(metrics: Metrics, anomaliesBefore: number | undefined): void {
  const y = [...metrics].find(([name]) => name.startsWith('lab7_y{'))?.[1]
  assert.equal(metrics.get(series('lab7_anomaly_count', CALM_EDGE)), 0, 'anomaly count of a good sample')
  assert.ok(y !== undefined && y > 5 && y < 15, `latency of a good sample: about 9 ms, got ${String(y)}`)
  assert.equal(metrics.get(anomalies), anomaliesBefore, 'anomalies of the monitor')
}

/** Nowhere in what a daemon says is what is not for everyone. */
export async function assertNoSecret(daemon: Daemon): Promise<void> {
  const shown = daemon.child.hasEnded()
    ? []
    : await Promise.all(['/metrics', '/api/state', '/'].map(async (path) => (await daemon.get(path)).body))
  assertWithoutSecrets([...daemon.lines, ...shown])
}

export function assertWithoutSecrets(texts: readonly string[]): void {
  for (const text of texts) {
    const at = SECRETS.map((secret) => text.indexOf(secret)).find((index) => index >= 0)
    if (at !== undefined) assert.fail(`a secret got out: ${text.slice(Math.max(0, at - 60), at)}...`)
  }
}

/** Whether a fault was over in between, so that it may be told of twice. */
function recovered(lines: readonly LogEvent[]): boolean {
  return lines.filter(({ msg }) => msg === OVER).length > 1
}

const OVER = 'polls succeed again'
const began = (outcome: string): string => (outcome === 'warnings' ? 'polls come with warnings' : 'polls fail')

/** Lines that ask for attention, but for those that a poll of an open incident always makes. */
export function alarming(events: readonly LogEvent[]): readonly LogEvent[] {
  return events.filter(({ level, msg }) => Number(level) >= 40 && !String(msg).startsWith(INCIDENT))
}

/** How many polls came to what a row allows. */
function met(
  counts: Readonly<Record<string, number>>,
  { outcome }: Expected,
  { tolerated = [] }: ConnectionFault,
): number {
  // What is tolerated of a daemon that does not meet the fault is not waited for.
  const allowed = outcome === 'ok' ? [outcome] : [outcome, ...tolerated]
  return allowed.reduce((sum, one) => sum + (counts[one] ?? 0), 0)
}

/**
 * Lets a lane meet a fault: what is exported meanwhile and afterwards, what was counted, what was logged, and how soon it
 * is over.
 *
 * @returns what was seen
 */
export async function meet(
  lane: Lane,
  row: ConnectionFault,
  { patienceMs = PATIENCE_MS }: { readonly patienceMs?: number } = {},
): Promise<string> {
  const { proxy } = lane
  const sides = (['monitor', 'incident'] as const).map((name) => ({
    name,
    daemon: lane[name],
    expected: row[name] ?? ({ outcome: 'ok' } satisfies Expected),
    affected: row[name] !== undefined,
  }))
  const before = await Promise.all(
    sides.map(async ({ daemon }) => ({ metrics: await daemon.metrics(), from: daemon.lines.length })),
  )
  const askers = new Set<Asker>(sides.flatMap(({ name, affected }) => (affected ? [name] : [])))
  const seen: string[] = []
  let endMs = 0
  try {
    if (row.fault === 'refuse') await proxy.refuse()
    else if (typeof row.fault === 'function') proxy.inject(row.fault, askers)
    else await row.fault.begin(lane)
    const during = await Promise.all(
      sides.map(({ name, daemon, expected }, i) =>
        until(
          `${POLLS} polls of the ${name} that come to ${expected.outcome}`,
          async () => {
            const metrics = await daemon.metrics()
            return met(risen(before[i]!.metrics, metrics), expected, row) >= POLLS ? metrics : undefined
          },
          { patienceMs, told: () => JSON.stringify(alarming(daemon.events(before[i]!.from))) },
        ),
      ),
    )
    sides.forEach(({ name, expected, affected }, i) => {
      const [then, now] = [before[i]!.metrics, during[i]!]
      if (name === 'incident')
        assert.deepEqual(facts(now), facts(then), 'gauges of the incident daemon during the fault')
      else if (USED.has(expected.outcome)) assertCalm(now, then.get(anomalies))
      else assertNothingInvented(now, expected, then.get(anomalies))
      if (affected)
        seen.push(
          `${name}: ${Object.entries(risen(then, now))
            .filter(([one]) => one !== 'ok' || expected.outcome === 'ok')
            .map(([one, count]) => `${one} ×${count}`)
            .join(' and ')}`,
        )
    })
    for (const { daemon } of sides) assert.equal((await daemon.get('/healthz')).status, 200, '/healthz')
    await row.also?.(lane)
  } finally {
    if (typeof row.fault === 'object') await row.fault.end(lane)
    endMs = Date.now()
    proxy.inject(null)
    await proxy.accept()
  }
  const over: number[] = []
  for (const [i, { name, daemon, expected }] of sides.entries()) {
    const { from, metrics: then } = before[i]!
    const failed = expected.outcome !== 'ok'
    if (failed) {
      const event = await daemon.logged(`that the ${name} recovered`, from, ({ msg }) => msg === OVER)
      const overMs = Date.parse(String(event['time']))
      const asked = proxy.asked.filter(({ asker, atMs }) => asker === name && atMs >= endMs && atMs <= overMs)
      // A poll that was under way when Prometheus came back may be the one.
      const least = typeof row.fault === 'object' ? 0 : 1
      const count = asked.length
      assert.ok(count >= least && count <= 1 + (row.wary ?? 0), `polls of the ${name} until one was accepted: ${count}`)
      const firstMs = (asked[0]?.atMs ?? endMs) - endMs
      assert.ok(firstMs <= PERIOD_MS + SLACK_MS, `next poll of the ${name} after ${firstMs} ms`)
      over.push(overMs - endMs)
    }
    const metrics = await until(`a good poll of the ${name}`, async () => {
      const now = await daemon.metrics()
      return name === 'monitor' && now.get(series('lab7_anomaly_count', CALM_EDGE)) === undefined ? undefined : now
    })
    if (name === 'incident')
      assert.deepEqual(facts(metrics), facts(then), 'gauges of the incident daemon after the fault')
    else assertCalm(metrics, then.get(anomalies))
    const tolerated: readonly string[] = row.tolerated ?? []
    const lines = daemon.events(from)
    const counted = Object.keys(risen(then, metrics)).filter((one) => one !== 'ok')
    const told = alarming(lines)
      .filter(({ msg }) => row.mayTell?.includes(String(msg)) !== true)
      .map(({ msg, outcome }) => `${String(msg)}: ${String(outcome)}`)
    if (tolerated.length === 0 || !failed) {
      const still = Array<string>(row.summary ?? 0).fill(`polls still fail: ${expected.outcome}`)
      assert.deepEqual(counted, failed ? [expected.outcome] : [], `outcomes of the ${name}`)
      assert.deepEqual(
        told,
        failed ? [`${began(expected.outcome)}: ${expected.outcome}`, ...still] : [],
        `lines of the ${name} about the fault`,
      )
    } else {
      // One line for each change among what is allowed, and nothing else.
      const allowed: readonly string[] = [expected.outcome, ...tolerated]
      assert.deepEqual(
        counted.filter((one) => !allowed.includes(one)),
        [],
        `outcomes of the ${name}`,
      )
      assert.deepEqual(
        told.filter((one) => !allowed.some((outcome) => one === `${began(outcome)}: ${outcome}`)),
        [],
        `lines of the ${name} about the fault`,
      )
      assert.ok(
        told.length >= 1 && told.every((one, k) => one !== told[k - 1] || recovered(lines)),
        `lines of the ${name} about the fault: ${told.join(', ')}`,
      )
    }
    const said = lines.find(({ msg, outcome }) => msg === began(expected.outcome) && outcome === expected.outcome)
    if (expected.detail !== undefined)
      assert.match(String(said?.['detail']), expected.detail, 'what the log says of it')
    await assertNoSecret(daemon)
  }
  if (over.length > 0) seen.push(`accepted again after ${Math.max(...over)} ms`)
  return seen.join(', ')
}
