import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { parseAllDocuments } from 'yaml'

import { UsageError } from '../core/errors.js'
import type { ManifestDocument } from '../core/virtual-service-objects.js'

const MAX_FILE_BYTES = 32 * 2 ** 20

/**
 * The documents of a YAML or JSON file, or of those right in a directory.
 *
 * @param flag - how the user named the path, for the message
 * @throws {UsageError} when something cannot be read or is not YAML
 */
export function readManifests(path: string, flag: string): readonly ManifestDocument[] {
  const refuse = (file: string, reason: string): never => {
    throw new UsageError(`${flag}: ${JSON.stringify(file).slice(1, -1)}: ${reason}`)
  }
  const reading = <T>(file: string, read: () => T): T => {
    try {
      return read()
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      return refuse(file, code === 'ENOENT' ? 'no such file or directory' : message)
    }
  }
  const files = reading(path, () =>
    statSync(path).isDirectory()
      ? readdirSync(path)
          .filter((name) => /\.(ya?ml|json)$/.test(name))
          .sort()
          .map((name) => join(path, name))
      : [path],
  )
  return files.flatMap((file) => {
    const { size } = reading(file, () => statSync(file))
    if (size > MAX_FILE_BYTES)
      return refuse(file, `expected at most ${MAX_FILE_BYTES / 2 ** 20} MiB, got ${size} bytes`)
    const text = reading(file, () => readFileSync(file, 'utf8'))
    return parseAllDocuments(text).map((document, i) => {
      const [error] = document.errors
      if (error !== undefined)
        return refuse(file, `not YAML: ${(error.message.split('\n', 1)[0] ?? '').replace(/:$/, '')}`)
      // Aliases that multiply are refused by toJS itself.
      return { value: reading(file, (): unknown => document.toJS()), where: `${file}, document ${i + 1}` }
    })
  })
}
