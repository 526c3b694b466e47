import { UsageError } from './errors.js'
import {
  checkPromql,
  type EdgesQuery,
  latencyAndTrafficBy,
  latencyTrafficAndAgeBy,
  promqlOneOf,
  promqlString,
  QUANTILE_LABEL,
  SERIES_LABEL,
  type PairQuery,
} from './promql.js'

/** Label matchers, and nothing but label matchers. */
export interface Selector {
  /** As between the braces of a PromQL selector; never empty. */
  readonly text: string
  /** Whether it says itself which of Istio's two measurements is meant. */
  readonly choosesReporter: boolean
}

/** The query puts these to its own use. */
const TAKEN: readonly string[] = ['__name__', 'le', QUANTILE_LABEL, SERIES_LABEL]

/**
 * Reads what the user wrote between the braces with the grammar of PromQL, so that it can only narrow the query.
 *
 * @throws {UsageError} naming `what`
 */
export function parseSelector(text: string, what: string): Selector {
  const wrapped = `{${text}}`
  const expected = `${what} must be label matchers as between the braces of a PromQL selector, such as destination_service_namespace="boutique"`
  const refuse = (): never => {
    throw new UsageError(`${expected}, got ${JSON.stringify(text)}`)
  }
  const matchers: string[] = []
  const names: string[] = []
  const tree = parsed(wrapped, what) ?? refuse()
  const selector = tree.topNode.firstChild
  const list = selector?.firstChild
  if (selector?.name !== 'VectorSelector' || list?.name !== 'LabelMatchers') return refuse()
  if (list.to !== wrapped.length) return refuse()
  for (let matcher = list.firstChild; matcher !== null; matcher = matcher.nextSibling) {
    if (matcher.name === 'LineComment') continue
    const name = matcher.getChild('LabelName')
    if (matcher.name !== 'UnquotedLabelMatcher' || name === null) return refuse()
    names.push(wrapped.slice(name.from, name.to))
    matchers.push(wrapped.slice(matcher.from, matcher.to))
  }
  if (matchers.length === 0) return refuse()
  const taken = names.find((name) => name === '__name__' || name === 'le')
  if (taken !== undefined) {
    throw new UsageError(`${expected}, but ${taken} is the query's own, got ${JSON.stringify(text)}`)
  }
  return { text: matchers.join(','), choosesReporter: names.includes('reporter') }
}

function parsed(query: string, what: string): ReturnType<typeof checkPromql> | undefined {
  try {
    return checkPromql(query, what)
  } catch (error) {
    if (error instanceof UsageError) return undefined
    throw error
  }
}

export interface MeshQuery extends Pick<PairQuery, 'sourceLabel' | 'destinationLabel' | 'window' | 'quantiles'> {
  /** Null: the whole mesh. */
  readonly selector: Selector | null
}

/**
 * Latency quantiles, request rate and the newest sample's time of every edge that the selector matches, in one query. Measured
 * by the caller's side, as for a pair, unless the selector chooses another.
 *
 * @throws {UsageError} when the labels cannot name an edge
 */
export function meshQuery(mesh: MeshQuery): string {
  const { sourceLabel, destinationLabel } = mesh
  for (const [flag, label] of [
    ['--source-label', sourceLabel],
    ['--destination-label', destinationLabel],
  ] as const) {
    if (TAKEN.includes(label))
      throw new UsageError(`${flag} must be a label of Istio's, but ${label} is the query's own`)
  }
  if (sourceLabel === destinationLabel) {
    throw new UsageError(
      `--destination-label must be another label than --source-label, got ${destinationLabel} for both`,
    )
  }
  const query = latencyTrafficAndAgeBy(edgesQuery(mesh, []))
  checkPromql(query, 'the query')
  return query
}

/** Some edges of one source. Nothing else matches what selects them, and it is short. */
export interface EdgeBatch {
  readonly source: string
  /** At least one. */
  readonly destinations: readonly string[]
}

/** As meshQuery, of some of the edges, without the newest sample's time: for range queries of what was. */
export function meshTrainingQuery(mesh: MeshQuery, batch: EdgeBatch): string {
  return latencyAndTrafficBy(edgesQuery(mesh, batchMatchers(batch, mesh)))
}

/** A query of one's own, of some of the edges that it is of. Each of its selectors is narrowed. */
export function narrowedQuery(query: string, matchers: readonly string[]): string {
  const added: { readonly at: number; readonly text: string }[] = []
  const text = matchers.join(',')
  checkPromql(query, 'the query').iterate({
    enter: ({ name, node, to }) => {
      if (name !== 'VectorSelector') return
      const list = node.getChild('LabelMatchers')
      if (list === null) added.push({ at: to, text: `{${text}}` })
      else {
        const isEmpty = list.firstChild === null || list.firstChild.name === 'LineComment'
        added.push({ at: list.from + 1, text: isEmpty ? text : `${text},` })
      }
    },
  })
  return added.reduceRight((narrowed, { at, text }) => narrowed.slice(0, at) + text + narrowed.slice(at), query)
}

/** @param labels - that name an edge's ends */
export function batchMatchers(
  { source, destinations }: EdgeBatch,
  { sourceLabel, destinationLabel }: Pick<MeshQuery, 'sourceLabel' | 'destinationLabel'>,
): readonly string[] {
  return [`${sourceLabel}=${promqlString(source)}`, `${destinationLabel}=~${promqlOneOf(destinations)}`]
}

function edgesQuery(mesh: MeshQuery, matchers: readonly string[]): EdgesQuery {
  const { selector, sourceLabel, destinationLabel, window, quantiles } = mesh
  const reporter = selector?.choosesReporter === true ? [] : [`reporter=${promqlString('source')}`]
  return {
    selector: `{${[...reporter, ...(selector === null ? [] : [selector.text]), ...matchers].join(',')}}`,
    by: [sourceLabel, destinationLabel],
    window,
    quantiles,
  }
}
