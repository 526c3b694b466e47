import { loadAndSeason } from '../core/baseline/load-and-season.js'
import type { Model } from '../core/baseline/model.js'
import { staticMad, staticSigma } from '../core/baseline/static.js'
import { prophet } from './prophet.js'

/** Every model that --model names; the first is the default. */
export const MODELS = [loadAndSeason, staticSigma, staticMad, prophet] as const satisfies readonly Model[]

export function modelNamed(name: string): Model {
  return MODELS.find((model) => model.name === name) ?? MODELS[0]
}
