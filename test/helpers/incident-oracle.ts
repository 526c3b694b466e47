/*
 * The incident rule, written a second time from its description alone, as plainly as it can be said. It shares no line with
 * what it is held against.
 */

export type Heard = { readonly anomalies: number } | 'silence'

export interface OracleRules {
  readonly incidentThreshold: number
  readonly clearThreshold: number
  readonly coolBy: number
  readonly accumulatorMax: number
  readonly noDataTimeoutSeconds: number
}

export interface OraclePair {
  level: number
  /** When something was last heard of it. */
  heardSeconds: number | null
  readonly threshold: number
}

export interface OracleIncident {
  readonly startedSeconds: number
  severity: 1 | 2
}

/** One poll of the pairs that belong together. @returns the incident afterwards, and whether silence ended it */
export function oraclePoll(
  pairs: readonly OraclePair[],
  heard: readonly Heard[],
  {
    seconds,
    open,
    rules,
  }: { readonly seconds: number; readonly open: OracleIncident | null; readonly rules: OracleRules },
): { readonly open: OracleIncident | null; readonly expired: boolean } {
  let hot = 0
  let temperature = 0
  let warm = 0
  let silent = 0
  pairs.forEach((pair, i) => {
    const said = heard[i]!
    if (said !== 'silence') {
      pair.heardSeconds = seconds
      if (said.anomalies > 0) pair.level += said.anomalies
      else pair.level -= rules.coolBy
      if (pair.level > rules.accumulatorMax) pair.level = rules.accumulatorMax
      if (pair.level < 0) pair.level = 0
    }
    if (pair.level === 0) return
    warm++
    if (pair.heardSeconds === null || seconds - pair.heardSeconds >= rules.noDataTimeoutSeconds) silent++
    temperature += pair.level
    if (pair.level > pair.threshold) hot++
  })
  if (warm > 0 && warm === silent) {
    for (const pair of pairs) pair.level = 0
    return { open: null, expired: true }
  }
  const severity = hot >= 2 ? 1 : 2
  if (open === null) {
    return {
      open: temperature > rules.incidentThreshold ? { startedSeconds: seconds, severity } : null,
      expired: false,
    }
  }
  return {
    open: temperature > rules.clearThreshold ? { startedSeconds: open.startedSeconds, severity } : null,
    expired: false,
  }
}

export interface OracleEdge extends OraclePair {
  readonly key: string
  readonly ends: readonly [string, string]
  /** The key of the incident it belongs to. */
  incident: string | null
}

/** A mesh: edges by key, none of them cold, and open incidents by the key of their first pair. */
export interface OracleMesh {
  readonly edges: Map<string, OracleEdge>
  readonly incidents: Map<string, OracleIncident>
}

/** One poll of a mesh. What is not in `heard` was not heard of. */
export function oracleMeshPoll(
  mesh: OracleMesh,
  heard: ReadonlyMap<string, { readonly ends: readonly [string, string]; readonly heard: Heard }>,
  { seconds, threshold, rules }: { readonly seconds: number; readonly threshold: number; readonly rules: OracleRules },
): void {
  for (const [key, { ends, heard: said }] of heard) {
    if (said === 'silence' || said.anomalies === 0 || mesh.edges.has(key)) continue
    mesh.edges.set(key, { key, ends, level: 0, heardSeconds: null, threshold, incident: null })
  }
  const saidOf = ({ key }: OracleEdge): Heard => heard.get(key)?.heard ?? 'silence'
  // An edge that tolerates no more on its own, or that belongs to an incident, draws in those it shares a service with.
  const lit = new Set<OracleEdge>()
  for (const edge of mesh.edges.values()) {
    const said = saidOf(edge)
    const cooled =
      said === 'silence' ? edge.level : said.anomalies > 0 ? edge.level + said.anomalies : edge.level - rules.coolBy
    const level = Math.min(rules.accumulatorMax, cooled)
    if (level > 0 && (edge.incident !== null || level > threshold || level > rules.incidentThreshold)) lit.add(edge)
  }
  const belong = (a: OracleEdge, b: OracleEdge): boolean =>
    (a.incident !== null && a.incident === b.incident) ||
    (lit.has(a) && a.key === b.incident) ||
    (lit.has(b) && b.key === a.incident) ||
    (lit.has(a) && lit.has(b) && a.ends.some((end) => b.ends.includes(end)))
  const left = new Set([...mesh.edges.values()].sort((a, b) => (a.key < b.key ? -1 : 1)))
  for (const first of left) {
    left.delete(first)
    const part = [first]
    for (const member of part) {
      for (const other of left) {
        if (!belong(member, other)) continue
        left.delete(other)
        part.push(other)
      }
    }
    foldPart(mesh, part, { saidOf, seconds, rules })
  }
}

function foldPart(
  mesh: OracleMesh,
  part: readonly OracleEdge[],
  {
    saidOf,
    seconds,
    rules,
  }: { readonly saidOf: (edge: OracleEdge) => Heard; readonly seconds: number; readonly rules: OracleRules },
): void {
  const older = (a: string, b: string): number =>
    mesh.incidents.get(a)!.startedSeconds - mesh.incidents.get(b)!.startedSeconds || (a < b ? -1 : 1)
  const [oldest, ...younger] = [...new Set(part.flatMap(({ incident }) => incident ?? []))].sort(older)
  for (const key of younger) mesh.incidents.delete(key)
  const { open } = oraclePoll(part, part.map(saidOf), {
    seconds,
    open: oldest === undefined ? null : mesh.incidents.get(oldest)!,
    rules,
  })
  const hottest = part.reduce((best, edge) =>
    edge.level > best.level || (edge.level === best.level && edge.key < best.key) ? edge : best,
  )
  const key = open === null ? null : (oldest ?? hottest.key)
  if (oldest !== undefined) mesh.incidents.delete(oldest)
  if (key !== null && open !== null) mesh.incidents.set(key, open)
  for (const edge of part) {
    edge.incident = key
    if (edge.level === 0) mesh.edges.delete(edge.key)
  }
}
