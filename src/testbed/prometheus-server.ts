import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { stringify } from 'yaml'

import type { Runtime } from '../io/runtime.js'
import { type Child, type ChildOptions, startChild } from './child-process.js'
import { findOrInstall } from './installed-program.js'

/**
 * Prometheus's program: $PROMETHEUS, or on the PATH; on Debian and Ubuntu as root the distribution's package is installed.
 *
 * @throws {StartError} in one line that says how to get it
 */
export function findPrometheus(runtime: Pick<Runtime, 'program' | 'logger'>): Promise<string> {
  return findOrInstall(runtime, {
    title: 'Prometheus',
    names: ['prometheus'],
    variable: 'PROMETHEUS',
    debianPackage: 'prometheus',
    howTo:
      'Prometheus is needed and was not found: apt-get install prometheus (Debian, Ubuntu), brew install prometheus (macOS), ' +
      'or a release from https://prometheus.io/download/ on the PATH or named by $PROMETHEUS',
  })
}

export interface PrometheusServer {
  readonly url: string
  /** As it says itself; empty when it does not. */
  readonly version: string
  readonly child: Child
}

export interface ScrapeJob {
  readonly name: string
  readonly metricsPath: string
  /** A file of targets in Prometheus's file_sd form; it may come and change later. */
  readonly targetsFile: string
}

/** A real Prometheus on a port of 127.0.0.1, with its data under `folder`. */
export async function startPrometheus(
  options: {
    readonly binary: string
    readonly folder: string
    /** Whole milliseconds. */
    readonly scrapeIntervalSeconds: number
    readonly jobs: readonly ScrapeJob[]
    /** A free one unless given, as to come back to where it was. */
    readonly port?: number
    /** Told of the process before it is ready, so that it can be ended whatever happens. */
    readonly started?: (child: Child) => void
  } & Pick<ChildOptions, 'ownGroup' | 'onLine'>,
): Promise<PrometheusServer> {
  const { binary, folder, scrapeIntervalSeconds, jobs, port = 0, started, ownGroup = false, onLine } = options
  const interval = `${Math.round(scrapeIntervalSeconds * 1000)}ms`
  mkdirSync(folder, { recursive: true })
  const configFile = join(folder, 'prometheus.yml')
  writeFileSync(
    configFile,
    stringify({
      global: { scrape_interval: interval, scrape_timeout: interval },
      scrape_configs: jobs.map(({ name, metricsPath, targetsFile }) => ({
        job_name: name,
        metrics_path: metricsPath,
        file_sd_configs: [{ files: [targetsFile] }],
      })),
    }),
  )
  let version = ''
  const child = startChild({
    name: 'prometheus',
    command: binary,
    args: [
      `--config.file=${configFile}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    ownGroup,
    onLine: (line) => {
      version ||= /\(version=([^,)]+)/.exec(line)?.[1] ?? ''
      onLine?.(line)
    },
  })
  started?.(child)
  try {
    const address = await child.waitForLine((line) => /"?Listening on"? address=(\S+)/.exec(line)?.[1])
    await child.waitForLine((line) => (line.includes('Server is ready to receive web requests') ? true : undefined))
    return { url: `http://${address}`, version, child }
  } catch (error) {
    await child.stop()
    throw error
  }
}

/** Writes targets in Prometheus's file_sd form. */
export function writeTargets(
  path: string,
  groups: readonly { readonly targets: readonly string[]; readonly labels?: Readonly<Record<string, string>> }[],
): void {
  writeFileSync(path, JSON.stringify(groups))
}
