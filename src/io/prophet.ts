import { Worker } from 'node:worker_threads'

import { createModel, deviationIn, type Fitted, HOW_TO, type Model, type Training } from '../core/baseline/model.js'
import { RecordingError } from '../core/errors.js'
import type { ProphetParameters } from './prophet-library.js'
import type { ProphetAnswer } from './prophet-worker.js'

/** More than its eleven coefficients need, and as many as for every other model. */
const MIN_SAMPLES = 30

const HOUR_SECONDS = 3_600

/** Half width of the band in standard deviations, Phi^-1(0.995): 99 % of normal samples lie inside. */
const BAND_SIGMAS = 2.5758293035489004

/**
 * Prophet as the lab sets it (Taylor & Letham, Forecasting at scale, The American Statistician 72, 2018): a flat level and an
 * hourly seasonality of Fourier order 5, fitted once, by Grafana's augurs and Stan; nothing is learnt from the stream. The
 * stream is moved in time so that its first sample is at the start of the training. Like the original it takes a flat
 * recording at its word: the band has no width then, and every other value is outside.
 */
export const prophet: Model = createModel({
  name: 'prophet',
  minSamples: MIN_SAMPLES,
  parametersOf: async (training) => ({
    parameters: await fitInWorker(training),
    startSeconds: Math.round(training.timesSeconds[0] ?? 0),
  }),
  fittedFrom: fittedOf,
})

/** Stan works for a second or so without a pause, which the event loop must not notice. */
async function fitInWorker({ timesSeconds, latenciesMs }: Training): Promise<ProphetParameters> {
  const worker = new Worker(new URL('./prophet-worker.js', import.meta.url), {
    workerData: { timesSeconds, latenciesMs },
    // Stan tells the terminal of its troubles; our stdout may be data.
    stdout: true,
    stderr: true,
  })
  worker.stdout.resume()
  worker.stderr.resume()
  try {
    const answer = await new Promise<ProphetAnswer>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
      worker.once('exit', (code) =>
        reject(new Error(`the worker that fits prophet ended with code ${code}, no answer`)),
      )
    })
    if (answer.kind === 'failed') throw notFitted(answer.reason)
    const { trendMs, coefficientsMs, sigmaMs } = answer.parameters
    if (![trendMs, sigmaMs, ...coefficientsMs].every(Number.isFinite)) throw notFitted('a coefficient is not finite')
    return answer.parameters
  } finally {
    await worker.terminate()
  }
}

function notFitted(reason: string): RecordingError {
  const line = reason.replace(/\s+/g, ' ').trim()
  return new RecordingError(`prophet could not be fitted to the training data: ${line}; ${HOW_TO}`)
}

function fittedOf({
  parameters,
  startSeconds,
}: {
  readonly parameters: ProphetParameters
  /** When the training starts, unix seconds. */
  readonly startSeconds: number
}): Fitted {
  const { trendMs, sigmaMs } = parameters
  const halfWidthMs = BAND_SIGMAS * sigmaMs
  const swingsMs = Array.from({ length: 60 }, (_, minute) => seasonalityMs(parameters, 60 * minute))
  const swingMs = Math.max(...swingsMs) - Math.min(...swingsMs)
  return {
    summary: `a level of ${trendMs.toPrecision(4)} ms and an hourly swing of ${swingMs.toPrecision(3)} ms; band +-${halfWidthMs.toPrecision(3)} ms`,
    watch: () => {
      let firstSeconds: number | null = null
      return {
        judge: ({ timestampSeconds, latencyMs }) => {
          if (latencyMs !== null) firstSeconds ??= timestampSeconds
          const sinceFirst = firstSeconds === null ? 0 : timestampSeconds - firstSeconds
          const forecastMs = trendMs + seasonalityMs(parameters, startSeconds + sinceFirst)
          const yhatMs = Math.max(0, forecastMs)
          const yMinMs = Math.max(0, forecastMs - halfWidthMs)
          const yMaxMs = Math.max(yhatMs, forecastMs + halfWidthMs)
          return {
            yhatMs,
            yMinMs,
            yMaxMs,
            deviation: deviationIn({ yhatMs, yMinMs, yMaxMs }, latencyMs),
            driftRatio: null,
            beyondTraining: false,
          }
        },
      }
    },
  }
}

/** The Fourier series at a time in unix seconds; sines and cosines of multiples by the addition theorems. */
function seasonalityMs({ coefficientsMs }: ProphetParameters, timeSeconds: number): number {
  // Only the time within the hour matters, and it keeps more digits.
  const angle = (2 * Math.PI * (timeSeconds % HOUR_SECONDS)) / HOUR_SECONDS
  const sin = Math.sin(angle)
  const cos = Math.cos(angle)
  let sinN = sin
  let cosN = cos
  let sum = 0
  for (let i = 0; i < coefficientsMs.length; i += 2) {
    sum += (coefficientsMs[i] ?? 0) * sinN + (coefficientsMs[i + 1] ?? 0) * cosN
    const next = sinN * cos + cosN * sin
    cosN = cosN * cos - sinN * sin
    sinN = next
  }
  return sum
}
