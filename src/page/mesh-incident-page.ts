import { type Course, courseOf } from '../core/evidence.js'
import { type PairVerdict, type Severity, temperatureOf } from '../core/incident.js'
import {
  isHot,
  type MeshIncident,
  meshIncidentId,
  type MeshPoll,
  type MeshRules,
  meshSeverity,
  type MeshState,
  meshTemperature,
  type WarmEdge,
  worstFirst,
} from '../core/mesh-incident.js'
import { type Pair, pairKey } from '../core/pair.js'
import type { Suspect } from '../core/suspect.js'
import { type EdgeMatches, fitting, highest, matching } from './edge-list.js'
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
  /** Edges whose accumulator is above 0. */
  readonly warm: number
  /** Of these. */
  readonly hot: number
  /** The hottest of the warm ones. */
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
  /** Its hottest edges, for a map; none beyond the worst MAX_MAPPED_INCIDENTS. */
  readonly map: readonly MappedEdge[]
}

export interface MappedEdge extends Pair {
  readonly accumulator: number
  readonly hot: boolean
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

/** What GET api/edge answers of it. */
export interface LookedAtWarmEdge extends ShownEdge {
  /** Since it was last cold: the accumulator from its first anomaly on, evenly thinned out. */
  readonly course: Course
}

export const MAX_SHOWN_INCIDENTS = 100

export const MAX_MAPPED_INCIDENTS = 10
export const MAX_MAPPED_EDGES = 30

/** What the incidents may take of the state, whatever the names are. */
const MAX_INCIDENT_BYTES = 96 * 2 ** 10

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
  /** The hottest warm edges that a text finds. */
  readonly find: (text: string) => EdgeMatches<ShownEdge>
  /** Undefined for one that is cold. */
  readonly look: (edge: Pair) => LookedAtWarmEdge | undefined
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
    find: (text) => (newest === null ? { edges: [], leftOut: 0 } : edgesOf(newest, text)),
    look: (pair) => {
      const key = pairKey(pair)
      const edge = newest?.state.edges.find((one) => one.key === key)
      return newest === null || edge === undefined
        ? undefined
        : { ...shownIn(newest)(edge), course: courseOf(edge.trail) }
    },
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
  const members = new Map<string, WarmEdge[]>(incidents.map(({ key }) => [key, []]))
  for (const edge of edges) members.get(edge.incident ?? '')?.push(edge)
  const told = worstFirst(incidents)
    .slice(0, MAX_SHOWN_INCIDENTS)
    .map((incident, place): ShownIncident => {
      const own = members.get(incident.key) ?? []
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
        map: place < MAX_MAPPED_INCIDENTS ? highest(own, MAX_MAPPED_EDGES, levelOf).map(mapped) : [],
      }
    })
  const shownIncidents = fitting(told, MAX_INCIDENT_BYTES)
  const listed = edgesOf({ state, poll }, '')
  return {
    timestampSeconds: poll.timestampSeconds,
    receivedSeconds,
    temperature: meshTemperature(state),
    monitors,
    expected,
    incidents: shownIncidents,
    incidentsLeftOut: incidents.length - shownIncidents.length,
    warm: edges.length,
    hot: edges.filter(isHot).length,
    edges: listed.edges,
    edgesLeftOut: listed.leftOut,
  }
}

function levelOf({ accumulator }: WarmEdge): number {
  return accumulator
}

function mapped(edge: WarmEdge): MappedEdge {
  const { source, destination, accumulator } = edge
  return { source, destination, accumulator, hot: isHot(edge) }
}

function edgesOf(moment: Pick<MeshMoment, 'state' | 'poll'>, text: string): EdgeMatches<ShownEdge> {
  return matching(moment.state.edges, text, { pairOf: (edge) => edge, heatOf: levelOf, shown: shownIn(moment) })
}

function shownIn({ state, poll }: Pick<MeshMoment, 'state' | 'poll'>): (edge: WarmEdge) => ShownEdge {
  const ids = new Map(state.incidents.map((incident) => [incident.key, meshIncidentId(incident)]))
  return (edge) => {
    const { key, heardSeconds, incident } = edge
    return {
      ...mapped(edge),
      verdict: poll.verdicts.get(key)?.verdict ?? { kind: 'unknown', reason: 'no_data' },
      heardSeconds,
      incident: incident === null ? null : (ids.get(incident) ?? null),
    }
  }
}
