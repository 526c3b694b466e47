import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

import { StartError } from '../core/errors.js'
import type { Program, Runtime } from '../io/runtime.js'
import { startChild } from './child-process.js'

/** A program of someone else's that is started beside us. */
export interface NeededProgram {
  /** For messages. */
  readonly title: string
  /** Its names on the PATH, the first that is there is taken. */
  readonly names: readonly string[]
  /** The environment variable that may name it. */
  readonly variable: string
  /** Its package in Debian and Ubuntu. */
  readonly debianPackage: string
  /** How to get it, for a person; one line. */
  readonly howTo: string
}

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
 * The path of a program: from its variable, or on the PATH; on Debian and Ubuntu as root the distribution's package is
 * installed.
 *
 * @throws {StartError} in one line that says how to get it
 */
export async function findOrInstall(
  { program, logger }: Pick<Runtime, 'program' | 'logger'>,
  { title, names, variable, debianPackage, howTo }: NeededProgram,
): Promise<string> {
  const named = program.environment[variable]
  if (named !== undefined && named !== '') {
    if (isExecutable(named)) return named
    throw new StartError(`$${variable} names ${named}, which is not a program that can be run`)
  }
  const find = (): string | undefined =>
    names.map((name) => findProgram(name, program)).find((path) => path !== undefined)
  const found = find()
  if (found !== undefined) return found
  if (!(program.isRoot && isDebian() && findProgram('apt-get', program) !== undefined)) throw new StartError(howTo)
  logger.info(`${title} is not on the PATH: installing the distribution package`)
  await installPackage(debianPackage, { program, howTo })
  const installed = find()
  if (installed === undefined) throw new StartError(howTo)
  return installed
}

function isDebian(): boolean {
  const path = '/etc/os-release'
  return existsSync(path) && /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(readFileSync(path, 'utf8'))
}

async function installPackage(
  name: string,
  { program, howTo }: { readonly program: Program; readonly howTo: string },
): Promise<void> {
  // RUNLEVEL=1 keeps the package from starting its own service.
  const quiet = { ...program.environment, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  for (const args of [
    ['update', '-qq'],
    ['install', '-qq', '-y', '--no-install-recommends', name],
  ]) {
    const code = await startChild({ name: `apt-get ${args[0] ?? ''}`, command: 'apt-get', args, environment: quiet })
      .exited
    if (code !== 0) throw new StartError(`apt-get ${args.join(' ')} ended with ${code ?? 'a signal'}. ${howTo}`)
  }
}
