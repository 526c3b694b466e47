import type { Registry } from 'prom-client'

import { incidentLabels } from '../core/alert.js'
import { NO_NEW_TIME, NO_TIME, pollTimes } from '../core/anomaly-history.js'
import type { IstioNaming } from '../core/edge-facts.js'
import { type Evidence, evidenceText, type Happened } from '../core/evidence.js'
import { type IncidentHistory, withTransition } from '../core/incident-history.js'
import { temperatureOf } from '../core/incident.js'
import {
  edgeHistoryQuery,
  type MeshHistory,
  meshHistoryQuery,
  newlyAnomalous,
  readMeshHistory,
} from '../core/mesh-history.js'
import {
  COLD_MESH,
  hottestFirst,
  hottestMesh,
  type IncidentStep,
  isHot,
  meshIncidentId,
  meshNext,
  type MeshRules,
  meshSeverity,
  type MeshState,
  type MeshStep,
  meshTemperature,
  sameMesh,
  type WarmEdge,
  worstFirst,
} from '../core/mesh-incident.js'
import { pairName } from '../core/pair.js'
import { plainName } from '../core/plain-text.js'
import type { Matrix } from '../core/series.js'
import type { Suspect } from '../core/suspect.js'
import { createMeshIncidentPage, type MeshIncidentView, type MeshMoment } from '../page/mesh-incident-page.js'
import type { FoldedIncident, FoldedMesh, MeshNotifier } from './alertmanager.js'
import { createEvidenceSource } from './evidence-source.js'
import { createMeshIncidentGauges } from './gauges.js'
import { INCIDENT, NO_INCIDENT, TRANSITION } from './log.js'
import { type Answer, queryInstantMatrix } from './prometheus.js'
import type { Runtime } from './runtime.js'
import { pollDeadlineMs, type Poller, type PollResult } from './serve-daemon.js'
import { createStaleLog } from './stale-log.js'

export interface MeshIncidentConfig {
  readonly rules: MeshRules
  /** Matchers of the monitors' series, as between braces; empty for all. */
  readonly selector: string
  readonly prometheusUrl: string
  readonly pollIntervalMs: number
  readonly staleAfterSeconds: number
  /** How the edges are found among Istio's own metrics, which a transition is compared with. */
  readonly istio: IstioNaming
  /** Told of every poll that is folded. */
  readonly notifier: MeshNotifier
}

export interface MeshIncidentDetector extends Pick<Required<Poller>, 'poll' | 'history' | 'edges'> {
  /** What /metrics holds besides the registry. */
  readonly rendered: () => readonly Uint8Array[]
  readonly view: () => MeshIncidentView
}

/** How far back a start looks, until what came before the window cannot matter any more. */
const WARM_UP_SECONDS = [900, 3_600, 6 * 3_600, 24 * 3_600] as const
const MAX_WINDOW_SECONDS = Math.max(...WARM_UP_SECONDS)
const WARM_UP_DEADLINE_MS = 20_000

/** Polls that are read at once: of a large mesh a few minutes are megabytes. */
const MAX_STEPS = 60

/** Transitions of the warm-up that Prometheus is asked about once more: the newest, about a page of incidents. */
const MAX_REPLAYED = 100

/** Transitions of one poll that Prometheus is asked about, the worst; the others are told without what it would say. */
const MAX_ASKED_ABOUT = 10

/** Slots asked for beyond those that passed, so that a late poll misses none. */
const SPARE_SLOTS = 1
/** Slots without a new poll after which Prometheus repeats itself. */
const STALE_SLOTS = 3

/** Edges, and incidents, that a line of the log names. */
const MAX_LOGGED = 20

/** A span of polls: after the one, up to and with the other; unix seconds by Prometheus's clock. */
interface Span {
  readonly afterSeconds: number
  readonly untilSeconds: number
}

/** A transition that happened before the start. */
interface Replayed {
  readonly step: IncidentStep
  readonly timestampSeconds: number
  /** Whether it does not depend on what came before the window. */
  readonly certain: boolean
}

/** A window of the past, folded. */
interface Window {
  readonly moment: MeshMoment
  /** Whether what came before it does not matter for what is now. */
  readonly certain: boolean
  readonly polls: readonly FoldedMesh[]
  /** The newest MAX_REPLAYED. */
  readonly replayed: readonly Replayed[]
}

/**
 * Folds the incident rule over what the monitors of a whole mesh exported. Everything it knows comes from Prometheus's
 * history: a start replays it, and so does the first poll after an outage.
 */
export function createMeshIncidentDetector(
  config: MeshIncidentConfig,
  runtime: Runtime,
  registry: Registry,
): MeshIncidentDetector {
  const { rules, selector, prometheusUrl, pollIntervalMs, staleAfterSeconds, notifier } = config
  const { clock, logger, signal } = runtime
  const stepSeconds = pollIntervalMs / 1000
  const gauges = createMeshIncidentGauges(registry)
  const page = createMeshIncidentPage(rules)
  const staleLog = createStaleLog(runtime)
  let history: IncidentHistory = []
  /** About the newest transition of each incident, by its key: of open ones, and of those that ended in the last poll. */
  const newest = new Map<string, { readonly text: readonly string[]; readonly suspect: Suspect }>()
  /** When an answer last held a poll that was not known before. */
  let newestMs = 0
  let current: (MeshMoment & { readonly askedMs: number }) | null = null

  const ask = (query: string, deadlineMs: number, atSeconds: number | null): Promise<Answer<Matrix>> =>
    queryInstantMatrix(runtime, { prometheusUrl, query, deadlineMs, atSeconds })

  /**
   * @param warm - the edges of which all is read; of others what follows their first anomaly, at least
   * @param range - `atSeconds` null: up to now
   */
  const read = async (
    warm: readonly WarmEdge[],
    range: { readonly afterSeconds: number; readonly atSeconds: number | null; readonly rangeMs: number },
    deadlineMs: number,
  ): Promise<Answer<MeshHistory>> => {
    const endMs = clock.monotonicMs() + deadlineMs
    const asked = { atSeconds: range.atSeconds, rangeMs: Math.ceil(range.rangeMs), stepMs: pollIntervalMs }
    const answer = await ask(meshHistoryQuery(warm, selector, asked), deadlineMs, asked.atSeconds)
    if (answer.kind === 'failure') return answer
    const known = new Set(warm.map(({ key }) => key))
    const heated = newlyAnomalous(answer.data, { warm: known, afterSeconds: range.afterSeconds })
    const atSeconds = pollTimes(answer.data).at(-1)
    if (heated.length === 0 || atSeconds === undefined) {
      return { ...answer, data: readMeshHistory(answer.data, null, { staleAfterSeconds }) }
    }
    // One step more: Prometheus 3 leaves out a first one that lies on the edge of the range.
    const pinned = { ...asked, atSeconds, rangeMs: asked.rangeMs + pollIntervalMs }
    const more = await ask(edgeHistoryQuery(heated, selector, pinned), endMs - clock.monotonicMs(), atSeconds)
    if (more.kind === 'failure') return more
    return { ...answer, data: readMeshHistory(answer.data, more.data, { staleAfterSeconds }) }
  }

  /** Reads a span of the past. */
  const readSpan = (warm: readonly WarmEdge[], { afterSeconds, untilSeconds }: Span): Promise<Answer<MeshHistory>> => {
    const rangeMs = 1000 * (untilSeconds - afterSeconds)
    return read(warm, { afterSeconds, atSeconds: untilSeconds, rangeMs }, WARM_UP_DEADLINE_MS)
  }

  const spansOf = ({ afterSeconds, untilSeconds }: Span): readonly Span[] => {
    const count = Math.ceil((untilSeconds - afterSeconds) / (MAX_STEPS * stepSeconds))
    const at = (i: number): number => Math.round(1000 * (afterSeconds + i * MAX_STEPS * stepSeconds)) / 1000
    return Array.from({ length: count }, (_, i) => ({
      afterSeconds: at(i),
      untilSeconds: Math.min(at(i + 1), untilSeconds),
    }))
  }

  const warmEdges = (): readonly WarmEdge[] => current?.state.edges ?? []

  const show = (moment: MeshMoment): void => {
    const expected = notifier.expectedAt(moment.poll.timestampSeconds)
    page.note(moment, { nowSeconds: clock.nowMs() / 1000, expected })
  }

  /** Replays windows from the coldest and from the hottest mesh; where both arrive at one, the past before it is no matter. */
  const warmUp = async (askedMs: number): Promise<PollResult> => {
    const range = { rangeMs: 2 * pollIntervalMs, stepMs: pollIntervalMs, atSeconds: null }
    const now = await ask(meshHistoryQuery([], selector, range), pollDeadlineMs(pollIntervalMs), null)
    if (now.kind === 'failure') return now
    const untilSeconds = pollTimes(now.data).at(-1)
    if (untilSeconds === undefined) return NO_TIME
    // What was silent for a whole window has expired in it.
    const windows = WARM_UP_SECONDS.filter((seconds) => seconds > 1.2 * rules.noDataTimeoutSeconds)
    for (const windowSeconds of windows.length > 0 ? windows : [MAX_WINDOW_SECONDS]) {
      const answer = await replay({ afterSeconds: untilSeconds - windowSeconds, untilSeconds })
      if (answer.kind === 'failure') return answer
      if (answer.data === null) return NO_TIME
      const { moment, certain, polls, replayed } = answer.data
      if (!certain && windowSeconds < MAX_WINDOW_SECONDS) continue
      const { edges, incidents } = moment.state
      logger.info(
        {
          polls: polls.length,
          windowSeconds,
          certain,
          temperature: meshTemperature(moment.state),
          warmEdges: edges.length,
          openIncidents: incidents.length,
        },
        'warmed up from history',
      )
      for (const poll of polls) notifier.update(poll)
      // Of what was already under way when the window began, it is not known what happened to it.
      await remember(replayed.filter((entry) => entry.certain || !certain))
      forgetEnded(moment.state)
      current = { ...moment, askedMs }
      newestMs = askedMs
      break
    }
    return report()
  }

  /** @returns null data when there was no poll in it */
  const replay = async (span: Span): Promise<Answer<Window | null>> => {
    let state = COLD_MESH
    /** The fold from the hottest mesh; null when it has arrived at the same state. */
    let hottest = null as MeshState | null
    let moment: MeshMoment | null = null
    const polls: FoldedMesh[] = []
    const replayed: Replayed[] = []
    for (const part of spansOf(span)) {
      const answer = await readSpan([...state.edges, ...(hottest?.edges ?? [])], part)
      if (answer.kind === 'failure') return answer
      const { monitors } = answer.data
      for (const poll of answer.data.polls) {
        const { timestampSeconds, verdicts } = poll
        if (timestampSeconds <= (moment?.poll.timestampSeconds ?? -Infinity)) continue
        if (moment === null) hottest = hottestMesh([...verdicts.values()], rules, timestampSeconds)
        const after = meshNext(state, poll, rules)
        const other: MeshStep | null = hottest === null ? null : meshNext(hottest, poll, rules)
        for (const step of after.incidents) {
          const certain = other === null || other.incidents.some((one) => isSameStep(one, step))
          if (step.happened !== null) replayed.push({ step, timestampSeconds, certain })
        }
        replayed.splice(0, replayed.length - MAX_REPLAYED)
        const live = timestampSeconds === span.untilSeconds
        polls.push({ timestampSeconds, live, incidents: after.incidents.map(live ? folded : foldedShort) })
        state = after.state
        hottest = other?.state ?? null
        moment = { state, poll, monitors }
        show(moment)
      }
      if (hottest !== null && sameMesh(state, hottest)) hottest = null
    }
    const data = moment === null ? null : { moment, certain: hottest === null, polls, replayed }
    return { kind: 'answer', text: '', data }
  }

  const folded = (step: IncidentStep): FoldedIncident => ({
    ...foldedShort(step),
    rules: { ...rules, pairs: step.pairs },
    state: step.after,
    evidence: newest.get(step.incident.key)?.text ?? [],
  })

  /** Without its pairs, as is enough on the way to the last poll: those of a day would fill the memory. */
  const foldedShort = ({ incident, after, happened }: IncidentStep): FoldedIncident => {
    const labels = incidentLabels(incident.first)
    return {
      name: labels.pairs,
      labels,
      rules: { ...rules, pairs: [] },
      state: { ...after, accumulators: [], heardSeconds: [] },
      merged: happened === 'merged',
      evidence: [],
    }
  }

  /** Asks about a transition, and keeps what was answered. */
  const gather = async (step: IncidentStep, timestampSeconds: number, deadlineMs: number): Promise<Evidence> => {
    const about = { ...config, rules: { ...rules, pairs: step.pairs } }
    const packet = await createEvidenceSource(about, runtime).gather(happenedIn(step, timestampSeconds), deadlineMs)
    history = withTransition(history, packet)
    newest.set(step.incident.key, { text: evidenceText(packet), suspect: packet.suspect })
    return packet
  }

  const forgetEnded = ({ incidents }: MeshState): void => {
    const open = new Set(incidents.map(({ key }) => key))
    for (const key of newest.keys()) if (!open.has(key)) newest.delete(key)
  }

  /** What happened before the start is known again, but not announced again: each was, when it happened. */
  const remember = async (replayed: readonly Replayed[]): Promise<void> => {
    const endMs = clock.monotonicMs() + WARM_UP_DEADLINE_MS
    for (const { step, timestampSeconds } of replayed) {
      if (signal.aborted) return
      await gather(step, timestampSeconds, endMs - clock.monotonicMs())
    }
  }

  const advance = async (askedMs: number): Promise<PollResult> => {
    if (current === null) return warmUp(askedMs)
    const { state, poll, askedMs: lastAskedMs } = current
    const afterSeconds = poll.timestampSeconds
    const sinceMs = Math.min(askedMs - lastAskedMs, MAX_STEPS * pollIntervalMs)
    const range = { afterSeconds, atSeconds: null, rangeMs: sinceMs + SPARE_SLOTS * pollIntervalMs }
    const answer = await read(state.edges, range, pollDeadlineMs(pollIntervalMs))
    if (answer.kind === 'failure') return answer
    const [first, untilSeconds] = [answer.data.polls[0], answer.data.polls.at(-1)?.timestampSeconds]
    if (
      first === undefined ||
      untilSeconds === undefined ||
      first.timestampSeconds - afterSeconds < 1.5 * stepSeconds
    ) {
      await fold(answer.data, untilSeconds ?? afterSeconds)
    } else {
      // After an outage, in pieces: the newest answer does not reach back to where the last one ended.
      const gap = { afterSeconds: Math.max(afterSeconds, untilSeconds - MAX_WINDOW_SECONDS), untilSeconds }
      for (const part of spansOf(gap)) {
        const piece = await readSpan(warmEdges(), part)
        if (piece.kind === 'failure') return piece
        await fold(piece.data, untilSeconds)
      }
    }
    if (current.poll !== poll) newestMs = askedMs
    current = { ...current, askedMs }
    const result = report()
    if (askedMs - newestMs <= STALE_SLOTS * pollIntervalMs) return result
    return NO_NEW_TIME
  }

  /** @param liveSeconds - the newest poll there is: what is before it is caught up on */
  const fold = async ({ polls, monitors }: MeshHistory, liveSeconds: number): Promise<void> => {
    const endMs = clock.monotonicMs() + pollDeadlineMs(pollIntervalMs)
    for (const poll of polls) {
      if (current === null || poll.timestampSeconds <= current.poll.timestampSeconds) continue
      const { timestampSeconds } = poll
      const after = meshNext(current.state, poll, rules)
      gauges.count(after.incidents)
      const happened = after.incidents.filter(({ happened: what }) => what !== null).sort(worstStepFirst)
      for (const [i, step] of happened.entries()) {
        const deadlineMs = i < MAX_ASKED_ABOUT ? endMs - clock.monotonicMs() : 0
        announce(step, await gather(step, timestampSeconds, deadlineMs))
      }
      const live = timestampSeconds === liveSeconds
      notifier.update({ timestampSeconds, live, incidents: after.incidents.map(folded) })
      forgetEnded(after.state)
      current = { ...current, state: after.state, poll, monitors }
      show(current)
    }
  }

  const announce = ({ incident, pairs, after }: IncidentStep, packet: Evidence): void => {
    const { id, transition, mergedInto, severity, startedSeconds, timestampSeconds, temperature } = packet
    const levels = pairs.map((pair, i) => ({ ...pair, accumulator: after.accumulators[i] ?? 0 }))
    logger.warn(
      {
        incident: id,
        transition,
        ...(mergedInto === undefined ? {} : { mergedInto }),
        severity,
        startedSeconds,
        timestampSeconds,
        temperature,
        pairs: pairs.length,
        accumulators: byName(levels),
        evidence: packet,
        text: newest.get(incident.key)?.text ?? [],
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

  /** One line a poll, with the words that people search the log for. */
  const report = (): PollResult => {
    if (current === null) return NO_TIME
    const { state, poll, monitors } = current
    const { edges, incidents } = state
    gauges.publish(state, monitors)
    const hottest = hottestFirst(edges)
    staleLog.note(hottest.map((edge) => [nameOf(edge), poll.verdicts.get(edge.key)?.verdict]))
    const unknown = hottest.flatMap((edge): readonly (readonly [string, string])[] => {
      const verdict = poll.verdicts.get(edge.key)?.verdict
      return verdict?.kind === 'ok' || verdict?.kind === 'anomalous'
        ? []
        : [[nameOf(edge), verdict?.reason ?? 'no_data']]
    })
    const fields = {
      timestampSeconds: poll.timestampSeconds,
      temperature: meshTemperature(state),
      monitors,
      warmEdges: edges.length,
      accumulators: byName(hottest),
      ...(unknown.length === 0 ? {} : { unknown: Object.fromEntries(unknown.slice(0, MAX_LOGGED)) }),
      ...(incidents.length === 0 ? {} : { incidents: summariesOf(state), openIncidents: incidents.length }),
      ...expectedAt(poll.timestampSeconds),
    }
    const severity = meshSeverity(state)
    if (severity === null) logger.info(fields, NO_INCIDENT)
    else logger.warn({ ...fields, severity }, `${INCIDENT}${severity}`)
    if (monitors > 0 || poll.verdicts.size > 0) return { outcome: 'ok', detail: '' }
    return { outcome: 'empty', detail: `Prometheus knows of no monitor${selector === '' ? '' : ` with {${selector}}`}` }
  }

  return {
    poll: () => advance(clock.monotonicMs()),
    history: () => ({ incidents: history }),
    rendered: gauges.rendered,
    view: () => page.view(({ key }) => newest.get(key)?.suspect ?? null),
    edges: {
      find: page.find,
      look: (pair) => {
        const edge = page.look(pair)
        return Promise.resolve(edge === undefined ? { kind: 'unknown' } : { kind: 'found', edge })
      },
    },
  }
}

function happenedIn(step: IncidentStep, timestampSeconds: number): Happened {
  const { incident, happened, mergedInto, before, after, trails } = step
  return {
    transition: happened ?? 'opened',
    id: meshIncidentId(incident),
    ...(mergedInto === null ? {} : { mergedInto: meshIncidentId(mergedInto) }),
    startedSeconds: incident.startedSeconds,
    before,
    after,
    timestampSeconds,
    trails,
  }
}

function isSameStep(a: IncidentStep, b: IncidentStep): boolean {
  return (
    a.happened === b.happened &&
    a.incident.key === b.incident.key &&
    a.incident.startedSeconds === b.incident.startedSeconds
  )
}

/** Sev 1 first, what has ended last. */
function worstStepFirst(a: IncidentStep, b: IncidentStep): number {
  const rank = ({ after }: IncidentStep): number => after.open?.severity ?? 3
  return rank(a) - rank(b)
}

function nameOf(edge: WarmEdge): string {
  return plainName(pairName(edge))
}

/** @param edges - the hottest first */
function byName(edges: readonly WarmEdge[]): Readonly<Record<string, number>> {
  return Object.fromEntries(edges.slice(0, MAX_LOGGED).map((edge) => [nameOf(edge), edge.accumulator]))
}

/** The worst incidents, for a line of the log. */
function summariesOf({ edges, incidents }: MeshState): readonly Readonly<Record<string, unknown>>[] {
  return worstFirst(incidents)
    .slice(0, MAX_LOGGED)
    .map((incident) => {
      const own = edges.filter((edge) => edge.incident === incident.key)
      return {
        incident: meshIncidentId(incident),
        severity: incident.severity,
        temperature: temperatureOf(own.map(({ accumulator }) => accumulator)),
        pairs: own.length,
        hot: own.filter(isHot).length,
        began: plainName(pairName(incident.first)),
      }
    })
}
