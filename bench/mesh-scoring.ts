/*
 * What scoring one edge of a mesh costs once it is read, by what its baseline is made of; and whether the heap grows with it.
 *
 *   npm run bench:mesh scoring
 *
 * Of each figure the fastest of several passes.
 */
import { addSeries, emptyPairSeries, readPair } from '../src/core/reading.js'
import { cpuMicroseconds, garbageCollector, least, rounded, scoringCost, type Shape, SHAPES } from './mesh-fleet.js'

const PASSES = 9
const READINGS = 40_000
const START_SECONDS = 1_710_000_000
const GOAL_MICROSECONDS = 2

const collectGarbage = garbageCollector()
const measured = (Object.keys(SHAPES) as Shape[]).map((shape) => {
  const { found, microseconds, heapBytes } = scoringCost(shape, collectGarbage)
  return {
    shape,
    found,
    scoreMicroseconds: rounded(microseconds),
    ratioToGoal: rounded(microseconds / GOAL_MICROSECONDS),
    heapBytesPerEdgeAndPoll: Number(heapBytes.toFixed(3)),
  }
})

/** Making a reading of what an answer holds. */
const reading = least(
  Array.from({ length: PASSES }, () => {
    const from = cpuMicroseconds()
    for (let i = 0; i < READINGS; i++) {
      const pair = emptyPairSeries()
      const at = { evaluatedSeconds: START_SECONDS + i }
      addSeries(pair, { series: undefined, quantile: '0.5' }, { ...at, value: 10 + (i % 7) })
      addSeries(pair, { series: 'requests_per_second', quantile: undefined }, { ...at, value: 5 })
      addSeries(pair, { series: 'sample_timestamp_seconds', quantile: undefined }, { ...at, value: START_SECONDS + i })
      readPair(pair, 0, { quantiles: [0.5], maxAgeSeconds: 45, lastTimestampSeconds: START_SECONDS + i - 5 })
    }
    return (cpuMicroseconds() - from) / READINGS
  }),
)

console.log(
  JSON.stringify({ goalMicroseconds: GOAL_MICROSECONDS, measured, readingMicroseconds: rounded(reading) }, null, 2),
)
