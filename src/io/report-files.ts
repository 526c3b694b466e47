import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { StartError } from '../core/errors.js'
import { writeAtomically } from './atomic-file.js'

/**
 * Writes the files of a report into a folder, which is made when it is not there: each file whole or not at all, in the
 * order given, so that the last one is there only when all are.
 *
 * @throws {StartError} naming the path and the reason, such as a full disk
 */
export function writeReport(folder: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  try {
    mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw new StartError(`cannot make the folder ${folder}: ${(error as Error).message}`, { cause: error })
  }
  for (const [name, content] of Object.entries(files)) writeAtomically(join(folder, name), content)
}
