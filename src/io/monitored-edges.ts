import { edgeCourseQuery, readEdgeCourse } from '../core/edge-course.js'
import type { EdgeTable } from '../core/mesh-edges.js'
import { findScored, type LookedAtEdge, scoredEdge } from '../page/mesh-monitor-page.js'
import type { EdgeSource } from './edge-routes.js'
import { queryInstantMatrix } from './prometheus.js'
import type { Runtime } from './runtime.js'

/** Less than a browser waits. */
const DEADLINE_MS = 5_000

/** The edges of a mesh's monitor, for its page. What an edge was like is asked of Prometheus, which scrapes the monitor. */
export function createMonitoredEdges(
  config: { readonly prometheusUrl: string; readonly quantiles: readonly number[]; readonly pollIntervalMs: number },
  runtime: Runtime,
  table: Pick<EdgeTable, 'edges' | 'edgeOf'>,
): EdgeSource {
  const { prometheusUrl, quantiles, pollIntervalMs } = config
  return {
    find: (text) => findScored(table.edges, text),
    look: async (pair) => {
      const edge = table.edgeOf(pair)
      if (edge === undefined) return { kind: 'unknown' }
      const query = edgeCourseQuery(pair, pollIntervalMs)
      const answer = await queryInstantMatrix(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
      if (answer.kind === 'failure') return { kind: 'unanswered', detail: `${answer.outcome}: ${answer.detail}` }
      const looked: LookedAtEdge = { ...scoredEdge(edge), history: readEdgeCourse(answer.data, quantiles) }
      return { kind: 'found', edge: looked }
    },
  }
}
