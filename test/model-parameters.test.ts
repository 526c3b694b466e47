import assert from 'node:assert/strict'
import test from 'node:test'

import type { Fitted, Training } from '../src/core/baseline/model.js'
import { MODELS, modelNamed } from '../src/io/models.js'
import { seededRandom } from '../src/testbed/random.js'
import { T0 } from './helpers/recordings.js'

/** A day and a half that follows the day, its traffic and an hour. */
function training(): Training {
  const random = seededRandom(3)
  const timesSeconds = Array.from({ length: 1_080 }, (_, i) => T0 + 120 * i)
  const rates = timesSeconds.map((time) => 20 + 10 * Math.sin((2 * Math.PI * time) / 86_400) + random())
  return {
    timesSeconds,
    latenciesMs: timesSeconds.map(
      (time, i) => (5 + 0.5 * rates[i]! + 3 * Math.sin((2 * Math.PI * time) / 3_600)) * (1 + 0.1 * random()),
    ),
    requestsPerSecond: rates,
  }
}

function judgements({ watch }: Fitted): readonly object[] {
  const one = watch()
  return Array.from({ length: 200 }, (_, i) =>
    one.judge({ timestampSeconds: T0 + 130_000 + 15 * i, latencyMs: 10 + (i % 13), requestsPerSecond: 20 + (i % 7) }),
  )
}

for (const { name } of MODELS) {
  test(`model parameters: ${name} made of a copy of what was found judges as one that was fitted here`, async () => {
    const model = modelNamed(name)
    const fitted = await model.fit(training())
    const copied = model.fittedFrom(structuredClone(await model.parametersOf(training())))
    assert.equal(copied.summary, fitted.summary)
    assert.deepEqual(judgements(copied), judgements(fitted))
  })
}
