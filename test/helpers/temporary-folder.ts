import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

/** A folder of the test's own, gone when it ends. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-test-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Writes a file of the test's own and returns its path. */
export function temporaryFile(t: TestContext, content: string | Uint8Array, name = 'file.json'): string {
  const path = join(temporaryFolder(t), name)
  writeFileSync(path, content)
  return path
}
