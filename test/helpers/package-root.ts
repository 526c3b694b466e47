import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout these tests belong to, wherever the compiled tests lie: the folder of the nearest package.json. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) {
    if (folder === dirname(folder)) throw new Error('no package.json above the compiled tests')
    folder = dirname(folder)
  }
  return dirname(realpathSync(join(folder, 'package.json')))
}
