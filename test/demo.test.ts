import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { runProgram } from './helpers/program.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

test(
  'demo: real traffic through a real Prometheus becomes a Sev 2, a Sev 1 and a resolved incident',
  { timeout: 300_000 },
  async (t) => {
    const picture = join(temporaryFolder(t), 'demo.svg')
    const proxy = 'http://user:planted-secret@127.0.0.1:1'
    const environment = { HTTP_PROXY: proxy, HTTPS_PROXY: proxy, MESHFEVER_PROMETHEUS_URL: proxy }
    const { code, stdout, stderr } = await runProgram(t, ['demo', '--picture', picture], environment)
    assert.equal(code, 0, `${stdout}\n${stderr}`)
    assert.doesNotMatch(stdout + stderr, /planted/)
    const told = stdout.split('\n').map((line) => line.replace(/^\d\d:\d\d {2}/, ''))
    const outcomes = told
      .filter((line) => line.startsWith('-> '))
      .map((line) => line.replace(/\d+ anomalies/, 'anomalies'))
    assert.deepEqual(outcomes, ['-> no incident', '-> anomalies, no incident', '-> Sev 2', '-> Sev 1', '-> resolved'])
    assert.equal(told.at(-2), 'Everything happened as expected.')
    const svg = readFileSync(picture, 'utf8')
    for (const text of [
      'frontend -&gt; cartservice',
      'incident temperature',
      'Sev 1',
      'Sev 2',
      'delay for cartservice',
    ]) {
      assert.ok(svg.includes(text), `the picture shows ${text}`)
    }
  },
)
