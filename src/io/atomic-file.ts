import { renameSync, rmSync, writeFileSync } from 'node:fs'

import { StartError } from '../core/errors.js'

/**
 * Writes beside the target first and renames then: whoever reads the path sees the old file or the whole new one. Nothing
 * half-written stays.
 *
 * @throws {StartError} naming the path and the reason
 */
export function writeAtomically(path: string, content: string | Uint8Array): void {
  const temporary = `${path}.partial`
  try {
    writeFileSync(temporary, content, { flush: true })
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw new StartError(`cannot write ${path}: ${(error as Error).message}`, { cause: error })
  }
}
