/*
 * The incident rule for a whole mesh, a fold over polls: meshNext(state, poll, rules) -> state.
 *
 * Each incident is a part of the mesh to which the rule of a daemon with pairs is applied: the same function, over the pairs
 * that belong together. What is said here is only which these are.
 *
 * warm   an edge whose accumulator is above 0; all others are cold, and cost nothing
 * lit    a warm edge that is hot (more than incidents tolerate of one edge), or belongs to an open incident
 *
 * Two lit edges that share a service belong together; a warm edge that is not lit stands alone. So a short anomaly of ever so
 * many edges at once is as much of a transient as that of one, and a stray anomaly joins nothing. From the poll in which one
 * component's temperature opens an incident, its edges belong to that incident until they are cold or it closes:
 *
 * - an edge that becomes lit beside one of them joins it: a fault that spreads is still one incident;
 * - two incidents that touch become one, the older; the younger ends as `merged`;
 * - an incident whose edges no longer touch stays one: a split is what recovery looks like, and a page for each piece would come
 *   when it gets better. What goes on in one piece keeps it open, so nothing is lost.
 *
 * An incident is known by its first pair, the hottest when it opened. No two open ones have the same: when the first pair is lit
 * again after it was cold, it joins its incident, wherever it lies.
 */
import { type IncidentTransition, incidentId, NO_TRAIL, nextTrail, type Trail, UNKNOWN_TRAIL } from './evidence.js'
import {
  type IncidentRules,
  type IncidentState,
  next,
  nextAccumulator,
  type OpenIncident,
  type PairVerdict,
  type Severity,
  temperatureOf,
  transition,
  type WatchedPair,
} from './incident.js'
import { type Pair, pairKey } from './pair.js'

export interface MeshRules extends Omit<IncidentRules, 'pairs'> {
  /** An edge is hot when its accumulator is above this. */
  readonly accumulatorThreshold: number
}

/** What one poll says of one edge. */
export interface EdgeVerdict extends Pair {
  readonly verdict: PairVerdict
}

export interface MeshPoll {
  /** Unix seconds, by Prometheus's clock. */
  readonly timestampSeconds: number
  /** By pair key. Of edges that are not there nothing is known; of those that are cold only anomalies matter. */
  readonly verdicts: ReadonlyMap<string, EdgeVerdict>
}

export interface WarmEdge extends WatchedPair {
  readonly key: string
  /** Above 0, at most accumulatorMax. */
  readonly accumulator: number
  /** When it was last heard of, unix seconds; null for never. */
  readonly heardSeconds: number | null
  /** The key of the open incident that it belongs to. */
  readonly incident: string | null
  /** Its way since it was last cold. */
  readonly trail: Trail
}

export interface MeshIncident extends OpenIncident {
  /** The key of its first pair; no other open one has it. */
  readonly key: string
  readonly first: Pair
}

export interface MeshState {
  /** In the order of their keys. */
  readonly edges: readonly WarmEdge[]
  /** The oldest first. */
  readonly incidents: readonly MeshIncident[]
}

/** Points of an edge's way that are kept: fewer than of a pair's, since there may be many edges. */
const MAX_COURSE = 60

export const COLD_MESH: MeshState = { edges: [], incidents: [] }

/** What a poll did to one incident: its part of the mesh, as the rule of a daemon with pairs sees it. */
export interface IncidentStep extends Part {
  readonly incident: MeshIncident
  readonly happened: IncidentTransition | null
  /** The older incident, where `happened` is `merged`. */
  readonly mergedInto: MeshIncident | null
}

/** The edges that belonged to it before the poll or do so now, the hottest first, and their states in that order. */
interface Part {
  readonly pairs: readonly WarmEdge[]
  readonly before: IncidentState
  readonly after: IncidentState
  readonly trails: readonly Trail[]
}

export interface MeshStep {
  readonly state: MeshState
  /** Of every incident that was open before or is open now, the oldest first. */
  readonly incidents: readonly IncidentStep[]
}

/** The same for all replicas: derived from when the incident began, and with which pair. */
export function meshIncidentId({ startedSeconds, first }: MeshIncident): string {
  return incidentId(startedSeconds, [first])
}

/**
 * Above this an edge is lit on its own: it is hot, or would open an incident alone. With the lower of the two, edges that do so
 * in one poll are one incident from the first.
 */
export function litAbove({ accumulatorThreshold, incidentThreshold }: MeshRules): number {
  return Math.min(accumulatorThreshold, incidentThreshold)
}

export function meshNext(state: MeshState, poll: MeshPoll, rules: MeshRules): MeshStep {
  const edges = touchedEdges(state, poll, rules)
  const open = new Map(state.incidents.map((incident) => [incident.key, incident]))
  const edgesAfter: (WarmEdge | null)[] = edges.map(() => null)
  const steps: IncidentStep[] = []
  for (const members of componentsOf(edges, { open, poll, rules })) {
    const part = foldPart(members, { edges, open, poll, rules })
    members.forEach((member, i) => (edgesAfter[member] = part.edges[i] ?? null))
    steps.push(...part.steps)
  }
  const incidents = steps.flatMap(({ incident, after }) =>
    after.open === null ? [] : [{ ...incident, ...after.open }],
  )
  return {
    state: { edges: edgesAfter.filter((edge) => edge !== null), incidents: incidents.sort(byAge) },
    incidents: steps.sort((a, b) => byAge(a.incident, b.incident)),
  }
}

function byAge(a: MeshIncident, b: MeshIncident): number {
  return a.startedSeconds - b.startedSeconds || compared(a.key, b.key)
}

function compared(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function verdictAt({ verdicts }: MeshPoll, key: string): PairVerdict {
  return verdicts.get(key)?.verdict ?? { kind: 'unknown', reason: 'no_data' }
}

/** The warm edges and those that the poll heats, in the order of their keys; the latter with an accumulator of 0. */
function touchedEdges({ edges }: MeshState, { verdicts }: MeshPoll, { accumulatorThreshold }: MeshRules): WarmEdge[] {
  const warm = new Set(edges.map(({ key }) => key))
  const heated: WarmEdge[] = []
  for (const [key, { source, destination, verdict }] of verdicts) {
    if (verdict.kind !== 'anomalous' || warm.has(key)) continue
    heated.push({
      source,
      destination,
      accumulatorThreshold,
      key,
      accumulator: 0,
      heardSeconds: null,
      incident: null,
      trail: NO_TRAIL,
    })
  }
  // Two runs in order already, which the engine's sort merges.
  return heated.length === 0 ? [...edges] : [...edges, ...heated.sort(byKey)].sort(byKey)
}

function byKey(a: WarmEdge, b: WarmEdge): number {
  return compared(a.key, b.key)
}

interface Mesh {
  readonly open: ReadonlyMap<string, MeshIncident>
  readonly poll: MeshPoll
  readonly rules: MeshRules
}

/** The places of the edges that belong together, by union and find (Galler & Fisher, Commun. ACM 7, 1964); each in order. */
function componentsOf(edges: readonly WarmEdge[], { open, poll, rules }: Mesh): readonly (readonly number[])[] {
  const parents = Int32Array.from(edges.keys())
  const rootOf = (place: number): number => {
    let root = place
    for (let parent = parents[root] ?? root; parent !== root; parent = parents[root] ?? root) root = parent
    // The way is short the next time.
    for (let at = place; at !== root;) {
      const parent = parents[at] ?? root
      parents[at] = root
      at = parent
    }
    return root
  }
  const together = (known: Map<string, number>, name: string, place: number): void => {
    const other = known.get(name)
    if (other === undefined) known.set(name, place)
    else parents[rootOf(place)] = rootOf(other)
  }
  const services = new Map<string, number>()
  const incidents = new Map<string, number>()
  const threshold = litAbove(rules)
  edges.forEach(({ key, source, destination, accumulator, incident }, place) => {
    const level = nextAccumulator(accumulator, verdictAt(poll, key), rules)
    if (incident !== null) together(incidents, incident, place)
    if (level <= threshold && (incident === null || level === 0)) return
    together(services, source, place)
    together(services, destination, place)
    if (open.has(key)) together(incidents, key, place)
  })
  const components = new Map<number, number[]>()
  for (const place of edges.keys()) {
    const root = rootOf(place)
    const known = components.get(root)
    if (known === undefined) components.set(root, [place])
    else known.push(place)
  }
  return [...components.values()]
}

/** One edge in one poll. */
interface Row {
  readonly edge: WarmEdge
  /** Afterwards. */
  readonly accumulator: number
  readonly heardSeconds: number | null
  readonly trail: Trail
}

interface FoldedPart {
  /** In the order of the places; null when cold. */
  readonly edges: readonly (WarmEdge | null)[]
  readonly steps: readonly IncidentStep[]
}

function foldPart(
  places: readonly number[],
  { edges, open, poll, rules }: Mesh & { readonly edges: readonly WarmEdge[] },
): FoldedPart {
  const { timestampSeconds } = poll
  const members = places.flatMap((place) => edges[place] ?? [])
  const verdicts = members.map(({ key }) => verdictAt(poll, key))
  const [oldest, ...younger] = incidentsOf(members, open)
  const after = next(
    {
      accumulators: members.map(({ accumulator }) => accumulator),
      heardSeconds: members.map(({ heardSeconds }) => heardSeconds),
      open: oldest === undefined ? null : openOf(oldest),
      expired: false,
    },
    { timestampSeconds, verdicts },
    { ...rules, pairs: members },
  )
  const rows = members.map((edge, i): Row => {
    const accumulator = after.accumulators[i] ?? 0
    const anomalous = verdicts[i]?.kind === 'anomalous'
    const trail = nextTrail(edge.trail, { anomalous, timestampSeconds, accumulator }, MAX_COURSE)
    return { edge, accumulator, heardSeconds: after.heardSeconds[i] ?? null, trail }
  })
  const incident = oldest ?? (after.open === null ? undefined : beginning(rows, after.open))
  const belongsTo = after.open === null ? null : (incident?.key ?? null)
  return {
    edges: rows.map(({ edge, ...row }) => (row.accumulator === 0 ? null : { ...edge, ...row, incident: belongsTo })),
    steps:
      incident === undefined
        ? []
        : [stepOf(incident, rows, after), ...younger.map((other) => mergedStep(other, incident, rows))],
  }
}

function openOf({ startedSeconds, severity }: MeshIncident): OpenIncident {
  return { startedSeconds, severity }
}

/** Those that the edges belong to, the oldest first. */
function incidentsOf(members: readonly WarmEdge[], open: Mesh['open']): readonly MeshIncident[] {
  const keys = new Set(members.map(({ incident }) => incident))
  return [...keys].flatMap((key) => open.get(key ?? '') ?? []).sort(byAge)
}

/** @param rows - at least one, in the order of their keys */
function beginning(rows: readonly Row[], open: OpenIncident): MeshIncident | undefined {
  const hottest = rows.reduce<Row | undefined>(
    (best, row) => (row.accumulator > (best?.accumulator ?? 0) ? row : best),
    undefined,
  )
  if (hottest === undefined) return undefined
  const { key, source, destination } = hottest.edge
  return { key, first: { source, destination }, ...open }
}

function stepOf(incident: MeshIncident, rows: readonly Row[], { open, expired }: IncidentState): IncidentStep {
  const wasOpen = rows.some(({ edge }) => edge.incident === incident.key)
  const part = partOf(rows, { before: wasOpen ? openOf(incident) : null, after: open, expired })
  return { incident, happened: transition(part.before, part.after), mergedInto: null, ...part }
}

/** What becomes of the younger of two incidents that touch. */
function mergedStep(incident: MeshIncident, mergedInto: MeshIncident, rows: readonly Row[]): IncidentStep {
  const own = rows.filter(({ edge }) => edge.incident === incident.key)
  const part = partOf(own, { before: openOf(incident), after: null, expired: false })
  return { incident, happened: 'merged', mergedInto, ...part }
}

function partOf(
  rows: readonly Row[],
  open: { readonly before: OpenIncident | null; readonly after: OpenIncident | null; readonly expired: boolean },
): Part {
  const sorted = rows.toSorted((a, b) => b.accumulator - a.accumulator)
  return {
    pairs: sorted.map(({ edge }) => edge),
    trails: sorted.map(({ trail }) => trail),
    before: {
      accumulators: sorted.map(({ edge }) => edge.accumulator),
      heardSeconds: sorted.map(({ edge }) => edge.heardSeconds),
      open: open.before,
      expired: false,
    },
    after: {
      accumulators: sorted.map(({ accumulator }) => accumulator),
      heardSeconds: sorted.map(({ heardSeconds }) => heardSeconds),
      open: open.after,
      expired: open.expired,
    },
  }
}

/** The hottest a mesh can be: all of these edges, in an incident of which nobody knows when and where it began. */
export function hottestMesh(edges: readonly Pair[], rules: MeshRules, startedSeconds: number): MeshState {
  const { accumulatorThreshold, accumulatorMax: accumulator } = rules
  if (edges.length === 0) return COLD_MESH
  return {
    edges: edges
      .map(({ source, destination }) => ({
        source,
        destination,
        accumulatorThreshold,
        key: pairKey({ source, destination }),
        accumulator,
        heardSeconds: startedSeconds,
        incident: UNKNOWN.key,
        trail: UNKNOWN_TRAIL,
      }))
      .sort(byKey),
    incidents: [UNKNOWN],
  }
}

const UNKNOWN: MeshIncident = { key: 'unknown', first: { source: '', destination: '' }, startedSeconds: 0, severity: 1 }

/** Whether two folds have arrived at one state, so that what they began with does not matter any more. */
export function sameMesh(a: MeshState, b: MeshState): boolean {
  const told = ({ edges, incidents }: MeshState): string =>
    JSON.stringify([
      incidents,
      edges.map(({ key, accumulator, incident, trail }) => [key, accumulator, incident, trail.firstAnomalousSeconds]),
    ])
  return told(a) === told(b)
}

/** The warm edges, the hottest first; of equal ones in the order of their keys. */
export function hottestFirst(edges: readonly WarmEdge[]): readonly WarmEdge[] {
  return edges.toSorted((a, b) => b.accumulator - a.accumulator)
}

/** Sev 1 first, then the oldest. */
export function worstFirst(incidents: readonly MeshIncident[]): readonly MeshIncident[] {
  return incidents.toSorted((a, b) => a.severity - b.severity || byAge(a, b))
}

export function isHot({ accumulator, accumulatorThreshold }: WarmEdge): boolean {
  return accumulator > accumulatorThreshold
}

export function meshTemperature({ edges }: MeshState): number {
  return temperatureOf(edges.map(({ accumulator }) => accumulator))
}

/** The worst of the open incidents; null without one. */
export function meshSeverity({ incidents }: MeshState): Severity | null {
  if (incidents.length === 0) return null
  return incidents.some(({ severity }) => severity === 1) ? 1 : 2
}
