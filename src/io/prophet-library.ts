import { readFile } from 'node:fs/promises'

import initProphet, { Prophet } from '@bsull/augurs/prophet'
import { optimizer } from '@bsull/augurs-prophet-wasmstan'

import type { Training } from '../core/baseline/model.js'

/** Of the lab: terms of the hourly seasonality, and the share of normal samples inside the band. */
const FOURIER_ORDER = 5
const INTERVAL_WIDTH = 0.99

const HOURS_PER_DAY = 24
const NO_SEASONALITY = { type: 'manual', enabled: false } as const

/** The noise of a flat history, as a share of it: fit() in forecaster.py of github.com/facebook/prophet. */
const FLAT_SIGMA_OBS = 1e-9

/** What Prophet found, in milliseconds: the flat trend, a_1, b_1, a_2, b_2, ... of the seasonality, and the observation noise. */
export interface ProphetParameters {
  readonly trendMs: number
  /** y(t) = trend + sum over n of a_n sin(2 pi n t / 1 h) + b_n cos(2 pi n t / 1 h); 2 FOURIER_ORDER numbers, a before b. */
  readonly coefficientsMs: readonly number[]
  readonly sigmaMs: number
}

type OptimizerArguments = Parameters<typeof optimizer.optimize>
type OptimizerOutput = ReturnType<typeof optimizer.optimize>

/**
 * Fits Grafana's Prophet on Stan compiled to WebAssembly, with the lab's settings. This blocks: it belongs into a worker.
 * Importing this file loads Stan.
 *
 * @param options - `uncertaintySamples` is for the library's own intervals, which are drawn at random; the model needs none
 * @throws {Error} when Stan finds no way to the optimum, as on a recording without any noise; its WebAssembly is useless then
 */
export async function fitWithLibrary(
  { timesSeconds, latenciesMs }: Pick<Training, 'timesSeconds' | 'latenciesMs'>,
  options: { readonly uncertaintySamples: number },
): Promise<{ readonly parameters: ProphetParameters; readonly prophet: Prophet }> {
  // The package finds its file by a URL and asks fetch() for it, which reads no file: URL on Node.
  const wasm = new URL('prophet_bg.wasm', import.meta.resolve('@bsull/augurs/prophet'))
  await initProphet({ module_or_path: await readFile(wasm) })

  const flat = isFlat(latenciesMs)
  const stan: { params: OptimizerOutput['params'] | null; trouble: string | null } = { params: null, trouble: null }
  const prophet = new Prophet({
    optimizer: {
      optimize: (initial, data, rules) => {
        try {
          const output = flat ? leftAlone(initial) : optimizer.optimize(initial, data, rules)
          stan.params = output.params
          return output
        } catch (error) {
          stan.trouble = error instanceof Error ? error.message : String(error)
          throw error
        }
      },
    },
    growth: 'flat',
    intervalWidth: INTERVAL_WIDTH,
    uncertaintySamples: options.uncertaintySamples,
    dailySeasonality: NO_SEASONALITY,
    weeklySeasonality: NO_SEASONALITY,
    yearlySeasonality: NO_SEASONALITY,
  })
  prophet.addSeasonality('hourly', { period: 1 / HOURS_PER_DAY, fourierOrder: FOURIER_ORDER })
  try {
    // The library takes whole seconds only.
    prophet.fit({ ds: timesSeconds.map(Math.round), y: [...latenciesMs] })
  } catch (error) {
    throw stan.trouble === null ? error : new Error(stan.trouble, { cause: error })
  }
  const { params } = stan
  if (params === null) throw new Error('Prophet did not ask its optimizer')
  // Prophet fits the share of the largest value: `absmax` scaling.
  const scaleMs = extentOf(latenciesMs)[1] || 1
  return {
    prophet,
    parameters: {
      trendMs: params.m * scaleMs,
      coefficientsMs: Array.from(params.beta, (coefficient) => coefficient * scaleMs),
      sigmaMs: params.sigmaObs * scaleMs,
    },
  }
}

/** As in Prophet's own fit(), which augurs leaves out: Stan, too, would look for the scatter of a flat history in vain. */
function leftAlone(initial: OptimizerArguments[0]): OptimizerOutput {
  return {
    logs: { debug: '', info: '', warn: '', error: '', fatal: '' },
    params: { ...initial, sigmaObs: FLAT_SIGMA_OBS, trend: new Float64Array() },
  }
}

/** Whether all that there is to see is less than the noise that Prophet takes a flat history to have. */
function isFlat(latenciesMs: readonly number[]): boolean {
  const [least, most] = extentOf(latenciesMs)
  return most - least <= FLAT_SIGMA_OBS * most
}

function extentOf(values: readonly number[]): readonly [number, number] {
  return values.reduce<[number, number]>(
    ([least, most], value) => [Math.min(least, value), Math.max(most, value)],
    [Infinity, -Infinity],
  )
}
