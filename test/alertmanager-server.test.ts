import assert from 'node:assert/strict'
import { chmodSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'node:test'

import { StartError } from '../src/core/errors.js'
import { findAlertmanager } from '../src/testbed/alertmanager-server.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { runProgram } from './helpers/program.js'
import { temporaryFile } from './helpers/temporary-folder.js'

function machine(environment: Readonly<Record<string, string>>) {
  const { program, logger } = fakeRuntime([])
  return { program: { ...program, environment }, logger }
}

test('alertmanager server: it is found on the PATH under either name, and where $ALERTMANAGER says', async (t) => {
  for (const name of ['alertmanager', 'prometheus-alertmanager']) {
    const path = temporaryFile(t, '#!/bin/sh\n', name)
    chmodSync(path, 0o755)
    assert.equal(await findAlertmanager(machine({ PATH: `/nowhere:${dirname(path)}` })), path)
    assert.equal(await findAlertmanager(machine({ PATH: '', ALERTMANAGER: path })), path)
  }
})

test('alertmanager server: without it one line says how to get it', async (t) => {
  const notRunnable = join(dirname(temporaryFile(t, '')), 'file.json')
  for (const { environment, message } of [
    {
      environment: { PATH: '' },
      message: /^Alertmanager is needed and was not found: apt-get install .* \$ALERTMANAGER$/,
    },
    {
      environment: { PATH: '', ALERTMANAGER: notRunnable },
      message: /^\$ALERTMANAGER names .*, which is not a program/,
    },
  ]) {
    await assert.rejects(findAlertmanager(machine(environment)), (error) => {
      assert.ok(error instanceof StartError)
      assert.match(error.message, message)
      return true
    })
  }
})

for (const { flag, message } of [
  { flag: '--alertmanager-url=alertmanager:9093', message: '--alertmanager-url must be an http or https URL' },
  { flag: '--alertmanager-url=http://u:p@alertmanager', message: '--alertmanager-url must be an http or https URL' },
  { flag: '--maintenance=tonight', message: '--maintenance must be START/END=REASON' },
]) {
  test(`alertmanager server: incident ${flag} ends with exit code 2 and one line`, async (t) => {
    const { code, stdout, stderr } = await runProgram(t, [
      'incident',
      '--pair=a:b',
      '--prometheus-url=http://p:9090',
      flag,
    ])
    assert.deepEqual([code, stdout], [2, ''])
    assert.ok(stderr.startsWith(`meshfever: ${message}`), stderr)
    assert.equal(stderr.trimEnd().split('\n').length, 1)
  })
}

test('alertmanager server: incident --check takes several Alertmanagers and windows, and needs none of them to be up', async (t) => {
  const { code, stderr } = await runProgram(t, [
    'incident',
    ...['--pair=a:b', '--prometheus-url=http://p:9090', '--check'],
    ...['--alertmanager-url=http://a:9093', '--alertmanager-url=https://b:9093/prefix/'],
    '--maintenance=2026-11-21T22:00:00Z/2026-11-22T02:00:00Z=database upgrade',
    '--maintenance=0 2 * * 6 for 2h until 2027-01-01T00:00:00Z=weekly batch',
  ])
  assert.deepEqual([code, stderr], [0, ''])
})
