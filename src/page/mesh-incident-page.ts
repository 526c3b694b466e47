import { type PairVerdict, type Severity, temperatureOf } from '../core/incident.js'
import {
  hottestFirst,
  isHot,
  type MeshIncident,
  meshIncidentId,
  type MeshPoll,
  type MeshRules,
  meshSeverity,
  type MeshState,
  meshTemperature,
  worstFirst,
} from '../core/mesh-incident.js'
import type { Pair } from '../core/pair.js'
import type { Suspect } from '../core/suspect.js'
import { type Point, withPoint } from './ring.js'

/** What there is to show of the incident rule for a mesh. */
export interface MeshIncidentView {
  readonly kind: 'mesh-incident'
  readonly rules: MeshRules
  /** After the newest poll that Prometheus holds; null until there is one. */
  readonly now: MeshIncidentNow | null
  /** Polls of the last half hour in time order, a column each. */
  readonly history: {
    readonly timesSeconds: readonly number[]
    readonly temperatures: readonly number[]
    /** The worst of the open incidents; 0 for none. */
    readonly severities: readonly (Severity | 0)[]
    readonly openIncidents: readonly number[]
  }
}

export interface MeshIncidentNow {
  readonly timestampSeconds: number
  readonly receivedSeconds: number
  readonly temperature: number
  /** How many monitors Prometheus knew of. */
  readonly monitors: number
  /** Why an incident is expected now, in a maintenance window; null outside of one. */
  readonly expected: string | null
  /** Sev 1 first, then the oldest. */
  readonly incidents: readonly ShownIncident[]
  readonly incidentsLeftOut: number
  /** The warm ones, the hottest first. */
  readonly edges: readonly ShownEdge[]
  readonly edgesLeftOut: number
}

export interface ShownIncident {
  readonly id: string
  readonly severity: Severity
  /** Unix seconds. */
  readonly startedSeconds: number
  /** The pair it began with. */
  readonly first: Pair
  readonly temperature: number
  readonly edges: number
  /** Of the edges. */
  readonly hot: number
  /** By its newest transition; null where that is not known. */
  readonly suspect: Suspect | null
}

export interface ShownEdge extends Pair {
  readonly accumulator: number
  readonly hot: boolean
  readonly verdict: PairVerdict
  /** By Prometheus's clock, unix seconds; null for never. */
  readonly heardSeconds: number | null
  /** The id of the open incident that it belongs to. */
  readonly incident: string | null
}

export const MAX_SHOWN_EDGES = 500
export const MAX_SHOWN_INCIDENTS = 100

/** A poll, and the state after it. */
export interface MeshMoment {
  readonly state: MeshState
  readonly poll: MeshPoll
  readonly monitors: number
}

export interface MeshIncidentPage {
  /** @param at - the daemon's clock, and the reason of the maintenance window it is in */
  note(moment: MeshMoment, at: { readonly nowSeconds: number; readonly expected: string | null }): void
  /** @param suspectOf - by the newest transition of an open incident */
  view(suspectOf: (incident: MeshIncident) => Suspect | null): MeshIncidentView
}

interface Folded extends Point {
  readonly temperature: number
  readonly severity: Severity | 0
  readonly openIncidents: number
}

/** Keeps what there is to show: where the rule stands, and the half hour that led there. */
export function createMeshIncidentPage(rules: MeshRules): MeshIncidentPage {
  let points: readonly Folded[] = []
  let newest: (MeshMoment & Pick<MeshIncidentNow, 'receivedSeconds' | 'expected'>) | null = null
  return {
    note: (moment, { nowSeconds, expected }) => {
      const { state, poll } = moment
      points = withPoint(points, {
        timeSeconds: poll.timestampSeconds,
        temperature: meshTemperature(state),
        severity: meshSeverity(state) ?? 0,
        openIncidents: state.incidents.length,
      })
      newest = { ...moment, receivedSeconds: nowSeconds, expected }
    },
    view: (suspectOf) => ({
      kind: 'mesh-incident',
      rules,
      now: newest === null ? null : nowOf(newest, suspectOf),
      history: {
        timesSeconds: points.map(({ timeSeconds }) => timeSeconds),
        temperatures: points.map(({ temperature }) => temperature),
        severities: points.map(({ severity }) => severity),
        openIncidents: points.map(({ openIncidents }) => openIncidents),
      },
    }),
  }
}

function nowOf(
  {
    state,
    poll,
    monitors,
    receivedSeconds,
    expected,
  }: MeshMoment & Pick<MeshIncidentNow, 'receivedSeconds' | 'expected'>,
  suspectOf: (incident: MeshIncident) => Suspect | null,
): MeshIncidentNow {
  const { edges, incidents } = state
  const ids = new Map(incidents.map((incident) => [incident.key, meshIncidentId(incident)]))
  return {
    timestampSeconds: poll.timestampSeconds,
    receivedSeconds,
    temperature: meshTemperature(state),
    monitors,
    expected,
    incidents: worstFirst(incidents)
      .slice(0, MAX_SHOWN_INCIDENTS)
      .map((incident): ShownIncident => {
        const own = edges.filter((edge) => edge.incident === incident.key)
        const { severity, startedSeconds, first } = incident
        return {
          id: meshIncidentId(incident),
          severity,
          startedSeconds,
          first,
          temperature: temperatureOf(own.map(({ accumulator }) => accumulator)),
          edges: own.length,
          hot: own.filter(isHot).length,
          suspect: suspectOf(incident),
        }
      }),
    incidentsLeftOut: Math.max(0, incidents.length - MAX_SHOWN_INCIDENTS),
    edges: hottestFirst(edges)
      .slice(0, MAX_SHOWN_EDGES)
      .map((edge): ShownEdge => {
        const { key, source, destination, accumulator, heardSeconds, incident } = edge
        return {
          source,
          destination,
          accumulator,
          hot: isHot(edge),
          verdict: poll.verdicts.get(key)?.verdict ?? { kind: 'unknown', reason: 'no_data' },
          heardSeconds,
          incident: incident === null ? null : (ids.get(incident) ?? null),
        }
      }),
    edgesLeftOut: Math.max(0, edges.length - MAX_SHOWN_EDGES),
  }
}
