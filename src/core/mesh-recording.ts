import { type Pair, pairKey } from './pair.js'
import { readRecording, type Recording } from './recording.js'
import { type Matrix, type Series, ShapeError } from './series.js'

/** A recording of each of many edges, from one answer whose series carry their names. */
export interface MeshRecording {
  readonly edges: readonly { readonly pair: Pair; readonly recording: Recording }[]
  /** Edges whose series contradict each other. */
  readonly unusable: readonly { readonly pair: Pair; readonly reason: string }[]
  /** As of a recording, of all edges together. */
  readonly reordered: number
}

/** @throws {ShapeError} when a series does not say of which edge it is */
export function readMeshRecording(
  matrix: Matrix,
  { sourceLabel, destinationLabel }: { readonly sourceLabel: string; readonly destinationLabel: string },
): MeshRecording {
  const byEdge = new Map<string, { readonly pair: Pair; readonly series: Series[] }>()
  matrix.result.forEach((series, i) => {
    const [source, destination] = [series.labels.get(sourceLabel), series.labels.get(destinationLabel)]
    if (source === undefined || destination === undefined) {
      const labels = JSON.stringify(Object.fromEntries(series.labels))
      throw new ShapeError(
        'bad_shape',
        `data.result[${i}].metric: expected the labels ${sourceLabel} and ${destinationLabel}, got ${labels.slice(0, 200)}`,
      )
    }
    const pair = { source, destination }
    const edge = byEdge.get(pairKey(pair)) ?? { pair, series: [] }
    edge.series.push(series)
    byEdge.set(pairKey(pair), edge)
  })
  const edges: { pair: Pair; recording: Recording }[] = []
  const unusable: { pair: Pair; reason: string }[] = []
  for (const { pair, series } of byEdge.values()) {
    try {
      edges.push({ pair, recording: readRecording({ ...matrix, result: series, reordered: 0 }) })
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error
      unusable.push({ pair, reason: error.message })
    }
  }
  return { edges, unusable, reordered: matrix.reordered }
}
