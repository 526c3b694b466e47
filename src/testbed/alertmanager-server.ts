import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { stringify } from 'yaml'

import type { Runtime } from '../io/runtime.js'
import { type Child, startChild } from './child-process.js'
import { findOrInstall } from './installed-program.js'

/**
 * Alertmanager's program: $ALERTMANAGER, or on the PATH; on Debian and Ubuntu as root the distribution's package is installed.
 *
 * @throws {StartError} in one line that says how to get it
 */
export function findAlertmanager(runtime: Pick<Runtime, 'program' | 'logger'>): Promise<string> {
  return findOrInstall(runtime, {
    title: 'Alertmanager',
    names: ['alertmanager', 'prometheus-alertmanager'],
    variable: 'ALERTMANAGER',
    debianPackage: 'prometheus-alertmanager',
    howTo:
      'Alertmanager is needed and was not found: apt-get install prometheus-alertmanager (Debian, Ubuntu), ' +
      'or a release from https://prometheus.io/download/ on the PATH or named by $ALERTMANAGER',
  })
}

export interface AlertmanagerServer {
  readonly url: string
  readonly child: Child
}

/** A real Alertmanager, alone, on 127.0.0.1, with its data under `folder`. */
export async function startAlertmanager(options: {
  readonly binary: string
  readonly folder: string
  /** As it stands in alertmanager.yml: `route` and `receivers` at least. */
  readonly config: Readonly<Record<string, unknown>>
  /** 0, the default: any free one. */
  readonly port?: number
}): Promise<AlertmanagerServer> {
  const { binary, folder, config, port = 0 } = options
  mkdirSync(folder, { recursive: true })
  const configFile = join(folder, 'alertmanager.yml')
  writeFileSync(configFile, stringify(config))
  const child = startChild({
    name: 'alertmanager',
    command: binary,
    args: [
      `--config.file=${configFile}`,
      `--storage.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--cluster.listen-address=',
    ],
  })
  try {
    const address = await child.waitForLine((line) => /"?Listening on"? address=(\S+)/.exec(line)?.[1])
    return { url: `http://${address}`, child }
  } catch (error) {
    await child.stop()
    throw error
  }
}
