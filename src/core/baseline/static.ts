import { mean, median, medianAbsoluteDeviation, standardDeviation } from 'simple-statistics'

import { createModel, deviationIn, type Expectation, type Fitted, type Model } from './model.js'
import { MAD_TO_SIGMA } from './robust-error.js'

/** A flat recording has no scatter and would make every other value an anomaly: nothing is known better than 2 %. */
const MIN_RELATIVE_HALF_WIDTH = 0.02

const MIN_SAMPLES = 30

/** Mean and standard deviation of the training: the band is +-3 sigma at all times. */
export const staticSigma: Model = createModel({
  name: 'static-sigma',
  minSamples: MIN_SAMPLES,
  parametersOf: ({ latenciesMs }) => {
    const values = [...latenciesMs]
    return { yhatMs: mean(values), halfWidthMs: 3 * standardDeviation(values) }
  },
  fittedFrom: constantBand,
})

/** Median and median absolute deviation of the training: the band is +-5 robust sigmas at all times. */
export const staticMad: Model = createModel({
  name: 'static-mad',
  minSamples: MIN_SAMPLES,
  parametersOf: ({ latenciesMs }) => {
    const values = [...latenciesMs]
    return { yhatMs: median(values), halfWidthMs: 5 * MAD_TO_SIGMA * medianAbsoluteDeviation(values) }
  },
  fittedFrom: constantBand,
})

function constantBand({ yhatMs, halfWidthMs }: { readonly yhatMs: number; readonly halfWidthMs: number }): Fitted {
  const width = Math.max(halfWidthMs, MIN_RELATIVE_HALF_WIDTH * yhatMs)
  const expectation: Expectation = { yhatMs, yMinMs: Math.max(0, yhatMs - width), yMaxMs: yhatMs + width }
  const { yMinMs, yMaxMs } = expectation
  return {
    summary: `${yhatMs.toPrecision(4)} ms +- ${width.toPrecision(3)} ms`,
    watch: () => ({
      judge: ({ latencyMs }) => ({
        yhatMs,
        yMinMs,
        yMaxMs,
        deviation: deviationIn(expectation, latencyMs),
        driftRatio: null,
        beyondTraining: false,
      }),
    }),
  }
}
