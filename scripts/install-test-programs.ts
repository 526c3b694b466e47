/*
 * What the tests run for real and this machine has not: on Debian and Ubuntu as root the distribution's packages are installed,
 * one after the other, since two test files that install at once would find each other's lock. Elsewhere it says how to get them;
 * tests that need one that is missing say so.
 */
import { StartError } from '../src/core/errors.js'
import { findAlertmanager } from '../src/testbed/alertmanager-server.js'
import { findPrometheus } from '../src/testbed/prometheus-server.js'
import { findOpenssl } from '../test/helpers/certificates.js'
import { findKustomize } from '../test/helpers/kustomize.js'
import { findVictoriaMetrics } from '../test/helpers/victoria-metrics.js'
import { findChromium } from '../bench/page-stage.js'
import { benchRuntime } from '../bench/runtime.js'

const runtime = benchRuntime()
for (const find of [findPrometheus, findAlertmanager, findVictoriaMetrics, findOpenssl, findChromium]) {
  try {
    await find(runtime)
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    console.error(error.message)
  }
}
const kustomize = findKustomize()
if (kustomize.kind === 'missing') console.error(kustomize.reason)
