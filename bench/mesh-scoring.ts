/*
 * What scoring one edge of a mesh costs once it is read, by what its baseline is made of; and whether the heap grows with it.
 *
 *   npm run bench:mesh-scoring
 *
 * Of each figure the fastest of several passes.
 */
import { addSeries, emptyPairSeries, type Reading, readPair } from '../src/core/reading.js'
import { score } from '../src/core/score.js'
import { lognormal, seededRandom } from '../src/testbed/random.js'
import { cpuMicroseconds, fitShape, least, rounded, RULES, type Shape, SHAPES } from './mesh-fleet.js'

const EDGES = 1_000
const ROUNDS = 40
const PASSES = 9
const START_SECONDS = 1_710_000_000

declare const gc: (() => void) | undefined
if (gc === undefined) throw new Error('run with node --expose-gc')

const random = seededRandom(5)
const values = Array.from({ length: 4_096 }, () => lognormal(random, { median: 11, sigma: 0.05 }))

function readings(round: number): readonly Reading[] {
  return Array.from({ length: EDGES }, (_, i): Reading => {
    const latencyMs = values[(i * 31 + round * 7) % values.length]!
    const sample = {
      timestampSeconds: START_SECONDS + 5 * round,
      latencies: [{ quantile: 0.5, latencyMs }],
      requestsPerSecond: 5 + (i % 10),
    }
    return { kind: 'sample', outcome: 'ok', sample }
  })
}

const shapes = Object.keys(SHAPES) as Shape[]
const measured = shapes.map((shape) => {
  const fitted = fitShape(shape, 1)
  const edges = Array.from({ length: EDGES }, () => new Map([[0.5, fitted.watch()]]))
  let round = 0
  const spent: number[] = []
  const heaps: number[] = []
  for (let pass = 0; pass < PASSES + 1; pass++) {
    let passMicroseconds = 0
    for (let i = 0; i < ROUNDS; i++) {
      const all = readings(round++)
      const from = cpuMicroseconds()
      for (let k = 0; k < EDGES; k++) score(edges[k]!, all[k]!, RULES)
      passMicroseconds += cpuMicroseconds() - from
    }
    gc()
    heaps.push(process.memoryUsage().heapUsed)
    // The first one is for the compiler.
    if (pass > 0) spent.push(passMicroseconds / (ROUNDS * EDGES))
  }
  return {
    shape,
    found: fitted.summary,
    scoreMicroseconds: rounded(least(spent)),
    heapBytesPerEdgeAndPoll: rounded((heaps.at(-1)! - heaps[1]!) / ((PASSES - 1) * ROUNDS * EDGES)),
  }
})

/** Making a reading of what an answer holds. */
const reading = least(
  Array.from({ length: PASSES }, () => {
    const from = cpuMicroseconds()
    for (let i = 0; i < ROUNDS * EDGES; i++) {
      const pair = emptyPairSeries()
      const at = { evaluatedSeconds: START_SECONDS + i }
      addSeries(pair, { series: undefined, quantile: '0.5' }, { ...at, value: values[i % values.length] })
      addSeries(pair, { series: 'requests_per_second', quantile: undefined }, { ...at, value: 5 })
      addSeries(pair, { series: 'sample_timestamp_seconds', quantile: undefined }, { ...at, value: START_SECONDS + i })
      readPair(pair, 0, { quantiles: [0.5], maxAgeSeconds: 45, lastTimestampSeconds: START_SECONDS + i - 5 })
    }
    return (cpuMicroseconds() - from) / (ROUNDS * EDGES)
  }),
)

console.log(
  JSON.stringify(
    {
      goalMicroseconds: 2,
      measured: measured.map((row) => ({ ...row, ratioToGoal: rounded(row.scoreMicroseconds / 2) })),
      readingMicroseconds: rounded(reading),
    },
    null,
    2,
  ),
)
