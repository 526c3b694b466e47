import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { packageRoot } from './helpers/package-root.js'

const DRILL = fileURLToPath(new URL('../scripts/drill.js', import.meta.url))

test('drill: a name that no experiment has is refused before anything starts', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [DRILL, 'lab7-no-fault', 'lab8'], { encoding: 'utf8' })
  assert.deepEqual([status, stdout], [2, ''])
  assert.match(stderr, /^drill: no experiment lab8 among lab7-double-delay, lab7-no-fault, .*, sock-shop-transients\n$/)
})

test('drill: what CI runs are experiments that are there', () => {
  const [, names = ''] =
    /^node dist\/scripts\/drill\.js (.+?) &$/m.exec(readFileSync(join(packageRoot(), '.ci/run'), 'utf8')) ?? []
  assert.equal(names.split(' ').length, 2)
  for (const name of names.split(' ')) assert.ok(existsSync(join(packageRoot(), `experiments/${name}.yaml`)), name)
})
