import type { Registry } from 'prom-client'

import { anomalyHistoryQuery, readPolls } from '../core/anomaly-history.js'
import {
  coldState,
  hottestState,
  type IncidentRules,
  type IncidentState,
  next,
  type Poll,
  temperatureOf,
  transition,
} from '../core/incident.js'
import { pairName } from '../core/pair.js'
import { createIncidentGauges } from './gauges.js'
import { INCIDENT, NO_INCIDENT, TRANSITION } from './log.js'
import { type Answer, queryInstantMatrix } from './prometheus.js'
import type { Runtime } from './runtime.js'
import { pollDeadlineMs, type Poller, type PollResult } from './serve-daemon.js'

export interface IncidentConfig {
  readonly rules: IncidentRules
  readonly prometheusUrl: string
  readonly pollIntervalMs: number
  readonly staleAfterSeconds: number
}

/** How far back a start looks, until what came before the window cannot matter any more. */
const WARM_UP_MS = [15 * 60_000, 3_600_000, 6 * 3_600_000, 24 * 3_600_000] as const
const WARM_UP_DEADLINE_MS = 20_000

/** Slots asked for beyond the last one folded, so that a late poll misses none. */
const SPARE_SLOTS = 3

/**
 * Folds the incident rule over what the monitors exported. Everything it knows comes from Prometheus's history: a start
 * replays it, and so does the first poll after an outage.
 */
export function createIncidentDetector(config: IncidentConfig, runtime: Runtime, registry: Registry): Poller {
  const { rules, prometheusUrl, pollIntervalMs, staleAfterSeconds } = config
  const { clock, logger } = runtime
  const gauges = createIncidentGauges(registry, rules)
  /** When an answer last held a poll that was not known before. */
  let newestMs = 0
  let current: { readonly state: IncidentState; readonly lastPoll: Poll | null; readonly askedMs: number } | null = null

  const ask = async (rangeMs: number, deadlineMs: number): Promise<Answer<readonly Poll[]>> => {
    const query = anomalyHistoryQuery(rules.pairs, { rangeMs: Math.ceil(rangeMs), stepMs: pollIntervalMs })
    const answer = await queryInstantMatrix(runtime, { prometheusUrl, query, deadlineMs })
    return answer.kind === 'failure'
      ? answer
      : { ...answer, data: readPolls(answer.data, { pairs: rules.pairs, staleAfterSeconds }) }
  }

  /** Replays a window from the coldest and from the hottest state; where both arrive at one, the past before it is no matter. */
  const warmUp = async (askedMs: number): Promise<PollResult> => {
    for (const rangeMs of WARM_UP_MS) {
      const answer = await ask(rangeMs, WARM_UP_DEADLINE_MS)
      if (answer.kind === 'failure') return answer
      const polls = answer.data
      if (polls.length === 0) return { outcome: 'empty', detail: 'Prometheus answered without a single time' }
      const fold = (from: IncidentState): IncidentState => polls.reduce((state, poll) => next(state, poll, rules), from)
      const state = fold(coldState(rules))
      const certain = sameIncident(state, fold(hottestState(rules, polls[0]?.timestampSeconds ?? 0)))
      if (certain || rangeMs === WARM_UP_MS.at(-1)) {
        logger.info(
          {
            polls: polls.length,
            windowSeconds: rangeMs / 1000,
            certain,
            temperature: temperatureOf(state.accumulators),
          },
          'warmed up from history',
        )
        current = { state, lastPoll: polls.at(-1) ?? null, askedMs }
        newestMs = askedMs
        break
      }
    }
    return report()
  }

  const advance = async (askedMs: number): Promise<PollResult> => {
    if (current === null) return warmUp(askedMs)
    const sinceMs = Math.min(askedMs - current.askedMs, Math.max(...WARM_UP_MS))
    const answer = await ask(sinceMs + SPARE_SLOTS * pollIntervalMs, pollDeadlineMs(pollIntervalMs))
    if (answer.kind === 'failure') return answer
    const lastSeconds = current.lastPoll?.timestampSeconds ?? -Infinity
    let { state, lastPoll } = current
    for (const poll of answer.data.filter(({ timestampSeconds }) => timestampSeconds > lastSeconds)) {
      const after = next(state, poll, rules)
      gauges.count(state, after)
      announce(state, after, poll)
      state = after
      lastPoll = poll
    }
    if (lastPoll !== current.lastPoll) newestMs = askedMs
    current = { state, lastPoll, askedMs }
    const result = report()
    if (askedMs - newestMs <= SPARE_SLOTS * pollIntervalMs) return result
    return { outcome: 'stale', detail: 'Prometheus answers with the same times again and again' }
  }

  const announce = (before: IncidentState, after: IncidentState, poll: Poll): void => {
    const happened = transition(before, after)
    if (happened === null) return
    logger.warn(
      {
        transition: happened,
        severity: after.open?.severity ?? null,
        startedSeconds: (after.open ?? before.open)?.startedSeconds,
        timestampSeconds: poll.timestampSeconds,
        temperature: temperatureOf(after.accumulators),
        accumulators: byPair(after),
      },
      TRANSITION,
    )
  }

  const byPair = ({ accumulators }: IncidentState): Record<string, number> =>
    Object.fromEntries(rules.pairs.map((pair, i) => [pairName(pair), accumulators[i] ?? 0]))

  /** One line a poll, with the words that people search the log for. */
  const report = (): PollResult => {
    if (current === null) return { outcome: 'empty', detail: 'Prometheus answered without a single time' }
    const { state, lastPoll } = current
    gauges.publish(state)
    const unknown = rules.pairs.flatMap((pair, i) => {
      const verdict = lastPoll?.verdicts[i]
      return verdict?.kind === 'unknown' ? [[pairName(pair), verdict.reason] as const] : []
    })
    const fields = {
      timestampSeconds: lastPoll?.timestampSeconds ?? null,
      temperature: temperatureOf(state.accumulators),
      accumulators: byPair(state),
      ...(unknown.length === 0 ? {} : { unknown: Object.fromEntries(unknown) }),
    }
    if (state.open === null) logger.info(fields, NO_INCIDENT)
    else logger.warn({ ...fields, severity: state.open.severity }, `${INCIDENT}${state.open.severity}`)
    return unknown.length === rules.pairs.length
      ? {
          outcome: 'empty',
          detail: `nothing is known of any pair: ${unknown.map((entry) => entry.join(': ')).join(', ')}`,
        }
      : { outcome: 'ok', detail: '' }
  }

  return { poll: () => advance(clock.monotonicMs()) }
}

function sameIncident(a: IncidentState, b: IncidentState): boolean {
  return JSON.stringify([a.accumulators, a.open]) === JSON.stringify([b.accumulators, b.open])
}
