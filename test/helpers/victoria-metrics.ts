import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Runtime } from '../../src/io/runtime.js'
import { startChild } from '../../src/testbed/child-process.js'
import { findOrInstall } from '../../src/testbed/installed-program.js'
import type { FilledPrometheus, FilledSeries } from './filled-prometheus.js'

/**
 * VictoriaMetrics, a single node: $VICTORIA_METRICS, or on the PATH; on Debian and Ubuntu as root the distribution's package
 * is installed.
 *
 * @throws {StartError} in one line that says how to get it
 */
export function findVictoriaMetrics(runtime: Pick<Runtime, 'program' | 'logger'>): Promise<string> {
  return findOrInstall(runtime, {
    title: 'VictoriaMetrics',
    names: ['victoria-metrics', 'victoria-metrics-prod'],
    variable: 'VICTORIA_METRICS',
    debianPackage: 'victoria-metrics',
    howTo:
      'VictoriaMetrics is needed and was not found: apt-get install victoria-metrics (Debian, Ubuntu), or its program on the PATH',
  })
}

/** Without it VictoriaMetrics answers what was 30 s ago. */
export const SETTLED_AFTER_A_SECOND = '-search.latencyOffset=1s'

/**
 * A real VictoriaMetrics that remembers what it never scraped.
 *
 * @param options.series - times in whole milliseconds
 * @param options.flags - besides its defaults
 */
export async function startFilledVictoriaMetrics({
  binary,
  series,
  flags,
}: {
  readonly binary: string
  readonly series: readonly FilledSeries[]
  readonly flags: readonly string[]
}): Promise<FilledPrometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-victoria-'))
  // It does not say which port it took for 0.
  const address = `127.0.0.1:${await freePort()}`
  const child = startChild({
    name: 'victoria-metrics',
    command: binary,
    args: [`-storageDataPath=${join(folder, 'data')}`, `-httpListenAddr=${address}`, '-retentionPeriod=100y', ...flags],
  })
  const stop = async (): Promise<void> => {
    await child.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await child.waitForLine((line) => (line.includes(`http://${address}/`) ? true : undefined))
    const url = `http://${address}`
    await sent(`${url}/api/v1/import/prometheus`, { method: 'POST', body: exposition(series) })
    // What was just stored is not found otherwise for a second.
    await sent(`${url}/internal/force_flush`, {})
    return {
      url,
      kill: async () => {
        child.signal('SIGKILL')
        await child.exited
      },
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/**
 * Evaluates recording rules over the past, as vmalert would have done then.
 *
 * @param rules - the text of a rule file, in which no rule uses what another records
 * @throws {StartError} with its last words
 */
export async function replayRules(
  url: string,
  rules: string,
  { startSeconds, endSeconds }: { readonly startSeconds: number; readonly endSeconds: number },
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-rules-'))
  const rulesFile = join(folder, 'rules.yaml')
  writeFileSync(rulesFile, rules)
  const at = (seconds: number): string => new Date(1000 * seconds).toISOString()
  const child = startChild({
    name: 'vmalert',
    command: 'vmalert',
    args: [
      `-rule=${rulesFile}`,
      `-datasource.url=${url}`,
      `-remoteWrite.url=${url}`,
      `-replay.timeFrom=${at(startSeconds)}`,
      `-replay.timeTo=${at(endSeconds)}`,
      '-replay.rulesDelay=1ms',
      // Else it asks for one value in five minutes.
      '-datasource.queryStep=15s',
      '-replay.disableProgressBar',
    ],
  })
  try {
    if ((await child.exited) !== 0) await child.waitForLine(() => undefined)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  await sent(`${url}/internal/force_flush`, {})
}

async function sent(url: string, init: RequestInit): Promise<void> {
  const response = await fetch(url, init)
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}

/** Prometheus's text format, with times. */
function exposition(series: readonly FilledSeries[]): string {
  const lines = series.flatMap(({ name, labels, samples }) => {
    const text = Object.entries(labels).map(([label, value]) => `${label}=${JSON.stringify(value)}`)
    return samples.map(([timeSeconds, value]) => `${name}{${text.join()}} ${value} ${Math.round(timeSeconds * 1000)}`)
  })
  return `${lines.join('\n')}\n`
}
