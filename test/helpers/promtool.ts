import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'

/** Why a test that needs promtool is skipped; false when it is there. */
export function noPromtool(): string | false {
  return spawnSync('promtool', ['--version']).status === 0 ? false : 'promtool is not on the PATH'
}

/** What promtool dislikes about names that existing dashboards use, and prom-client's: matters of taste, not of syntax. */
const TASTE =
  /^lab7_\S+ (metric names should not contain abbreviated units|non-histogram and non-summary metrics should not have "_count" suffix|non-summary metrics should not have "quantile" label)$|^nodejs_/

/** Why Prometheus could not parse the exposition; null when it can, whatever its linter says of it. */
export function promtoolParses(exposition: string | Uint8Array): string | null {
  const { status, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: typeof exposition === 'string' ? exposition : Buffer.from(exposition),
    encoding: 'utf8',
  })
  return status === 0 || status === 3 ? null : stderr
}

/** Fails when Prometheus could not parse the exposition, or its linter finds more than the names. */
export function assertPromtoolAccepts(exposition: string): void {
  const { status, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: exposition, encoding: 'utf8' })
  const complaints = stderr.split('\n').filter((line) => line !== '' && !TASTE.test(line))
  assert.deepEqual(complaints, [])
  // 0 and 3 are parsed, without and with complaints of the linter.
  assert.ok(status === 0 || status === 3, `promtool ended with ${status}`)
}
