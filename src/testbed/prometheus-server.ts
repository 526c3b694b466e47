import { accessSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

import { stringify } from 'yaml'

import { StartError } from '../core/errors.js'
import type { Program, Runtime } from '../io/runtime.js'
import { type Child, startChild } from './child-process.js'

const HOW_TO_GET_IT =
  'Prometheus is needed and was not found: apt-get install prometheus (Debian, Ubuntu), brew install prometheus (macOS), ' +
  'or a release from https://prometheus.io/download/ on the PATH or named by $PROMETHEUS'

/** A program on the PATH, or undefined. */
export function findProgram(name: string, { environment }: Pick<Program, 'environment'>): string | undefined {
  return (environment['PATH'] ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * Prometheus's program: $PROMETHEUS, or on the PATH; on Debian and Ubuntu as root the distribution's package is installed.
 *
 * @throws {StartError} in one line that says how to get it
 */
export async function findPrometheus({ program, logger }: Runtime): Promise<string> {
  const named = program.environment['PROMETHEUS']
  if (named !== undefined && named !== '') {
    if (isExecutable(named)) return named
    throw new StartError(`$PROMETHEUS names ${named}, which is not a program that can be run`)
  }
  const found = findProgram('prometheus', program)
  if (found !== undefined) return found
  if (!(program.isRoot && isDebian() && findProgram('apt-get', program) !== undefined))
    throw new StartError(HOW_TO_GET_IT)
  logger.info('Prometheus is not on the PATH: installing the distribution package')
  await installPackage('prometheus', program)
  const installed = findProgram('prometheus', program)
  if (installed === undefined) throw new StartError(HOW_TO_GET_IT)
  return installed
}

function isDebian(): boolean {
  const path = '/etc/os-release'
  return existsSync(path) && /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(readFileSync(path, 'utf8'))
}

async function installPackage(name: string, { environment }: Program): Promise<void> {
  // RUNLEVEL=1 keeps the package from starting its own service.
  const quiet = { ...environment, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  for (const args of [
    ['update', '-qq'],
    ['install', '-qq', '-y', '--no-install-recommends', name],
  ]) {
    const code = await startChild({ name: `apt-get ${args[0] ?? ''}`, command: 'apt-get', args, environment: quiet })
      .exited
    if (code !== 0) throw new StartError(`apt-get ${args.join(' ')} ended with ${code ?? 'a signal'}. ${HOW_TO_GET_IT}`)
  }
}

export interface PrometheusServer {
  readonly url: string
  readonly child: Child
}

export interface ScrapeJob {
  readonly name: string
  readonly metricsPath: string
  /** A file of targets in Prometheus's file_sd form; it may come and change later. */
  readonly targetsFile: string
}

/** A real Prometheus on a free port of 127.0.0.1, with its data under `folder`. */
export async function startPrometheus(options: {
  readonly binary: string
  readonly folder: string
  readonly scrapeIntervalSeconds: number
  readonly jobs: readonly ScrapeJob[]
}): Promise<PrometheusServer> {
  const { binary, folder, scrapeIntervalSeconds, jobs } = options
  mkdirSync(folder, { recursive: true })
  const configFile = join(folder, 'prometheus.yml')
  writeFileSync(
    configFile,
    stringify({
      global: { scrape_interval: `${scrapeIntervalSeconds}s`, scrape_timeout: `${scrapeIntervalSeconds}s` },
      scrape_configs: jobs.map(({ name, metricsPath, targetsFile }) => ({
        job_name: name,
        metrics_path: metricsPath,
        file_sd_configs: [{ files: [targetsFile] }],
      })),
    }),
  )
  const child = startChild({
    name: 'prometheus',
    command: binary,
    args: [
      `--config.file=${configFile}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      '--web.listen-address=127.0.0.1:0',
    ],
  })
  try {
    const address = await child.waitForLine((line) => /"?Listening on"? address=(\S+)/.exec(line)?.[1])
    await child.waitForLine((line) => (line.includes('Server is ready to receive web requests') ? true : undefined))
    return { url: `http://${address}`, child }
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
