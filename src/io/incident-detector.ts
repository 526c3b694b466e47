import type { Registry } from 'prom-client'

import { anomalyHistoryQuery, NO_NEW_TIME, NO_TIME, readPolls } from '../core/anomaly-history.js'
import type { IstioNaming } from '../core/edge-facts.js'
import {
  type Evidence,
  evidenceText,
  type Happened,
  happenedBetween,
  nextTrails,
  noTrails,
  type Trail,
  unknownTrails,
} from '../core/evidence.js'
import { type IncidentHistory, type IncidentHistoryJson, withTransition } from '../core/incident-history.js'
import {
  coldState,
  hottestState,
  type IncidentRules,
  type IncidentState,
  next,
  type Poll,
  temperatureOf,
} from '../core/incident.js'
import { pairName } from '../core/pair.js'
import { createIncidentPage } from '../page/incident-page.js'
import type { Notifier } from './alertmanager.js'
import { createEvidenceSource } from './evidence-source.js'
import { createIncidentGauges } from './gauges.js'
import { INCIDENT, NO_INCIDENT, TRANSITION } from './log.js'
import { type Answer, queryInstantMatrix } from './prometheus.js'
import type { Runtime } from './runtime.js'
import { pollDeadlineMs, type Poller, type PollResult } from './serve-daemon.js'
import { createStaleLog } from './stale-log.js'

export interface IncidentConfig {
  readonly rules: IncidentRules
  readonly prometheusUrl: string
  readonly pollIntervalMs: number
  readonly staleAfterSeconds: number
  /** How the pairs are found among Istio's own metrics, which a transition is compared with. */
  readonly istio: IstioNaming
  /** Told of every poll that is folded. */
  readonly notifier: Notifier
}

export interface IncidentDetector extends Poller {
  /** What is known of the latest incidents; they outlast a restart as long as the warm-up's window holds them. */
  readonly history: () => IncidentHistoryJson
}

/** The incident rule's state, and the way that led to it. */
interface Course {
  readonly state: IncidentState
  readonly trails: readonly Trail[]
}

/** How far back a start looks, until what came before the window cannot matter any more. */
const WARM_UP_MS = [15 * 60_000, 3_600_000, 6 * 3_600_000, 24 * 3_600_000] as const
const WARM_UP_DEADLINE_MS = 20_000

/** Transitions of the warm-up that Prometheus is asked about once more: the newest, about a page of incidents. */
const MAX_REPLAYED = 100

/** Slots asked for beyond the last one folded, so that a late poll misses none. */
const SPARE_SLOTS = 3

/**
 * Folds the incident rule over what the monitors exported. Everything it knows comes from Prometheus's history: a start
 * replays it, and so does the first poll after an outage.
 */
export function createIncidentDetector(config: IncidentConfig, runtime: Runtime, registry: Registry): IncidentDetector {
  const { rules, prometheusUrl, pollIntervalMs, staleAfterSeconds, notifier } = config
  const { clock, logger, signal } = runtime
  const gauges = createIncidentGauges(registry, rules)
  const evidence = createEvidenceSource(config, runtime)
  const page = createIncidentPage(rules)
  const staleLog = createStaleLog(runtime)
  let history: IncidentHistory = []
  /** About the newest transition, for the alerts. */
  let newestText: readonly string[] = []
  /** When an answer last held a poll that was not known before. */
  let newestMs = 0
  let current: (Course & { readonly lastPoll: Poll | null; readonly askedMs: number }) | null = null

  const show = (state: IncidentState, poll: Poll): void => {
    const expected = notifier.expectedAt(poll.timestampSeconds)
    page.note(state, poll, { nowSeconds: clock.nowMs() / 1000, expected })
  }

  const ask = async (rangeMs: number, deadlineMs: number): Promise<Answer<readonly Poll[]>> => {
    const query = anomalyHistoryQuery(rules.pairs, { rangeMs: Math.ceil(rangeMs), stepMs: pollIntervalMs })
    const answer = await queryInstantMatrix(runtime, { prometheusUrl, query, deadlineMs })
    return answer.kind === 'failure'
      ? answer
      : { ...answer, data: readPolls(answer.data, { pairs: rules.pairs, staleAfterSeconds }) }
  }

  const step = ({ state, trails }: Course, poll: Poll): Course => {
    const after = next(state, poll, rules)
    return { state: after, trails: nextTrails(trails, { before: state, after, poll }) }
  }

  const happenedAt = (before: Course, after: Course, { timestampSeconds }: Poll): Happened | null =>
    happenedBetween(before.state, after.state, { timestampSeconds, trails: after.trails })

  /** Replays a window from the coldest and from the hottest state; where both arrive at one, the past before it is no matter. */
  const warmUp = async (askedMs: number): Promise<PollResult> => {
    for (const rangeMs of WARM_UP_MS) {
      const answer = await ask(rangeMs, WARM_UP_DEADLINE_MS)
      if (answer.kind === 'failure') return answer
      const polls = answer.data
      const [first] = polls
      if (first === undefined) return NO_TIME
      let course: Course = { state: coldState(rules), trails: noTrails(rules) }
      let hottest: Course = { state: hottestState(rules, first.timestampSeconds), trails: unknownTrails(rules) }
      const folded: { readonly state: IncidentState; readonly timestampSeconds: number }[] = []
      const replayed: { readonly happened: Happened; readonly certain: boolean }[] = []
      for (const poll of polls) {
        const after = step(course, poll)
        const happened = happenedAt(course, after, poll)
        if (happened !== null) replayed.push({ happened, certain: sameCourse(course, hottest) })
        course = after
        show(after.state, poll)
        hottest = step(hottest, poll)
        folded.push({ state: after.state, timestampSeconds: poll.timestampSeconds })
      }
      const { state } = course
      const certain = sameCourse(course, hottest)
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
        folded.forEach((told, i) => {
          notifier.update({ rules, ...told, live: i === folded.length - 1, evidence: [] })
        })
        // Of what was already under way when the window began, it is not known what happened to it.
        await remember(replayed.filter((entry) => entry.certain || !certain).map(({ happened }) => happened))
        current = { ...course, lastPoll: polls.at(-1) ?? null, askedMs }
        newestMs = askedMs
        break
      }
    }
    return report()
  }

  /** What happened before the start is known again, but not announced again: each was, when it happened. */
  const remember = async (replayed: readonly Happened[]): Promise<void> => {
    const endMs = clock.monotonicMs() + WARM_UP_DEADLINE_MS
    for (const happened of replayed.slice(-MAX_REPLAYED)) {
      if (signal.aborted) return
      const packet = await evidence.gather(happened, endMs - clock.monotonicMs())
      history = withTransition(history, packet)
      newestText = evidenceText(packet)
    }
  }

  const advance = async (askedMs: number): Promise<PollResult> => {
    if (current === null) return warmUp(askedMs)
    const sinceMs = Math.min(askedMs - current.askedMs, Math.max(...WARM_UP_MS))
    const answer = await ask(sinceMs + SPARE_SLOTS * pollIntervalMs, pollDeadlineMs(pollIntervalMs))
    if (answer.kind === 'failure') return answer
    const lastSeconds = current.lastPoll?.timestampSeconds ?? -Infinity
    const endMs = clock.monotonicMs() + pollDeadlineMs(pollIntervalMs)
    let { lastPoll } = current
    let course: Course = current
    const fresh = answer.data.filter(({ timestampSeconds }) => timestampSeconds > lastSeconds)
    for (const poll of fresh) {
      const after = step(course, poll)
      gauges.count(course.state, after.state)
      const happened = happenedAt(course, after, poll)
      if (happened !== null) announce(await evidence.gather(happened, endMs - clock.monotonicMs()), after.state)
      const { timestampSeconds } = poll
      const live = poll === fresh.at(-1)
      notifier.update({ rules, state: after.state, timestampSeconds, live, evidence: newestText })
      course = after
      show(after.state, poll)
      lastPoll = poll
    }
    if (lastPoll !== current.lastPoll) newestMs = askedMs
    current = { ...course, lastPoll, askedMs }
    const result = report()
    if (askedMs - newestMs <= SPARE_SLOTS * pollIntervalMs) return result
    return NO_NEW_TIME
  }

  const announce = (packet: Evidence, after: IncidentState): void => {
    history = withTransition(history, packet)
    newestText = evidenceText(packet)
    const { transition, severity, startedSeconds, timestampSeconds, temperature } = packet
    logger.warn(
      {
        transition,
        severity,
        startedSeconds,
        timestampSeconds,
        temperature,
        accumulators: byPair(after),
        evidence: packet,
        text: newestText,
        ...expectedAt(timestampSeconds),
      },
      TRANSITION,
    )
  }

  /** In a maintenance window everything is logged as it is, with the reason why it is expected and not sent. */
  const expectedAt = (timestampSeconds: number): { readonly expected?: string } => {
    const expected = notifier.expectedAt(timestampSeconds)
    return expected === null ? {} : { expected }
  }

  const byPair = ({ accumulators }: IncidentState): Record<string, number> =>
    Object.fromEntries(rules.pairs.map((pair, i) => [pairName(pair), accumulators[i] ?? 0]))

  /** One line a poll, with the words that people search the log for. */
  const report = (): PollResult => {
    if (current === null) return NO_TIME
    const { state, lastPoll } = current
    gauges.publish(state)
    staleLog.note(rules.pairs.map((pair, i) => [pairName(pair), lastPoll?.verdicts[i]]))
    const unknown = rules.pairs.flatMap((pair, i) => {
      const verdict = lastPoll?.verdicts[i]
      return verdict?.kind === 'unknown' ? [[pairName(pair), verdict.reason] as const] : []
    })
    const fields = {
      timestampSeconds: lastPoll?.timestampSeconds ?? null,
      temperature: temperatureOf(state.accumulators),
      accumulators: byPair(state),
      ...(unknown.length === 0 ? {} : { unknown: Object.fromEntries(unknown) }),
      ...(lastPoll === null ? {} : expectedAt(lastPoll.timestampSeconds)),
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

  return { poll: () => advance(clock.monotonicMs()), history: () => ({ incidents: history }), view: page.view }
}

function sameCourse(a: Course, b: Course): boolean {
  const told = ({ state: { accumulators, open }, trails }: Course): string =>
    JSON.stringify([accumulators, open, trails])
  return told(a) === told(b)
}
