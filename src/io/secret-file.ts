import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'

import { UsageError } from '../core/errors.js'
import type { Runtime } from './runtime.js'

/** A bundle of all public authorities is a quarter of this. */
const MAX_FILE_BYTES = 2 ** 20

/** The text of a file. Calls `refuse` with the reason when it cannot be had; no reason repeats what stands in the file. */
export type ReadFile = (path: string, refuse: Refuse) => string
export type Refuse = (reason: string) => never

/** Something made of files that may be replaced at any time. */
export interface FromFiles<T> {
  /**
   * As the files say now. While they cannot be used it stays what it was; the log says so once. The same object as long as no
   * file changes.
   */
  readonly current: (logger: Runtime['logger']) => T
}

/**
 * Makes something of files, and makes it anew when one of them changes.
 *
 * Files are told apart by what stands in them: a Secret's symbolic link that is turned round, a file moved into place and one
 * written in place all show, whatever their times say.
 *
 * @param name - what the user calls it, for the log
 * @param make - reads every file through `read`; throws a UsageError when they cannot be used
 * @throws {UsageError} of the first `make`
 */
export function fromFiles<T>(name: string, make: (read: ReadFile) => T): FromFiles<T> {
  const load = (): { readonly value: T; readonly digests: ReadonlyMap<string, string> } => {
    const digests = new Map<string, string>()
    const value = make((path, refuse) => {
      const text = readSmallFile(path, refuse)
      digests.set(path, digestOf(text))
      return text
    })
    return { value, digests }
  }
  let { value, digests } = load()
  let problem = ''
  const refuse = (reason: string): never => {
    throw new UsageError(`${name}: ${reason}`)
  }
  const changed = (): boolean =>
    [...digests].some(
      ([path, digest]) => digestOf(readSmallFile(path, (reason) => refuse(`${path}: ${reason}`))) !== digest,
    )
  return {
    current: (logger) => {
      try {
        if (changed()) {
          ;({ value, digests } = load())
          logger.info({ files: [...digests.keys()] }, `${name} was read again`)
        } else if (problem !== '') logger.info(`${name} is again as it was`)
        problem = ''
      } catch (error) {
        if (!(error instanceof UsageError)) throw error
        if (error.message !== problem) {
          logger.warn(
            { detail: error.message },
            `${name} cannot be used as it is now: what was read before stays in use`,
          )
        }
        problem = error.message
      }
      return value
    },
  }
}

/** Kept in place of the text, so that a secret does not lie about in memory more often than it must. */
function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('base64')
}

function readSmallFile(path: string, refuse: Refuse): string {
  let text: string | null = null
  let reason = ''
  try {
    const stat = statSync(path)
    // A pipe would be waited for.
    if (!stat.isFile()) reason = 'not a regular file'
    else if (stat.size > MAX_FILE_BYTES) reason = `expected at most ${MAX_FILE_BYTES} bytes, got ${stat.size}`
    else text = readFileSync(path, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    reason = code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'not permitted to read it' : message
  }
  return text ?? refuse(reason)
}
