import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, constants, existsSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { closedUrl } from './helpers/local-server.js'
import { PROGRAM, startProgram } from './helpers/program.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

const ARGS = ['incident', '--pair=a:b', '--prometheus-url=http://127.0.0.1:9', '--listen-address=127.0.0.1']

/** Starts a daemon with this as its stdout, and ends it when it has polled for a while. */
async function exitCodeWith(t: TestContext, stdout: number): Promise<number | null> {
  const url = await closedUrl()
  const args = [PROGRAM, ...ARGS, `--prometheus-port=${new URL(url).port}`, '--poll-interval-seconds=0.1']
  const child = spawn(process.execPath, args, { env: {}, stdio: ['ignore', stdout, 'ignore'] })
  t.after(() => child.kill('SIGKILL'))
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  for (;;) {
    const polls = await fetch(`${url}/metrics`).then(
      async (response) => /polls_total\{outcome="conn"\} (\d+)/.exec(await response.text())?.[1],
      () => undefined,
    )
    if (Number(polls ?? 0) >= 5) break
    assert.equal(child.exitCode, null, 'ended by itself')
    await delay(50)
  }
  child.kill('SIGTERM')
  return exited
}

test('log: a disk that is full ends no daemon, and does not keep one from its end', async (t) => {
  if (!existsSync('/dev/full')) {
    t.skip('there is no /dev/full')
    return
  }
  const log = openSync('/dev/full', 'w')
  t.after(() => closeSync(log))
  assert.equal(await exitCodeWith(t, log), 0)
})

test('log: a pipe that nobody reads does not keep a daemon from its end', async (t) => {
  const path = join(temporaryFolder(t), 'log')
  if (spawnSync('mkfifo', [path]).status !== 0) {
    t.skip('there is no mkfifo')
    return
  }
  const log = openSync(path, constants.O_RDWR)
  t.after(() => closeSync(log))
  const filling = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  assert.throws(
    () => {
      for (;;) writeSync(filling, Buffer.alloc(4_096))
    },
    { code: 'EAGAIN' },
  )
  closeSync(filling)
  assert.equal(await exitCodeWith(t, log), 0)
})

test('log: of an error that nobody handled, what it carries besides its text is told to nobody', async (t) => {
  const text = `process.once('SIGUSR2', () => { void Promise.reject(Object.assign(new Error('boom'), { config: { auth: process.env.PLANTED } })) })`
  const module = temporaryFile(t, text, 'unhandled.mjs')
  const program = startProgram(t, [...ARGS, '--prometheus-port=0'], {
    NODE_OPTIONS: `--import=${module}`,
    PLANTED: 'planted-4711',
  })
  await program.logged('that it listens', ({ msg }) => msg === 'listening')
  program.kill('SIGUSR2')
  const exit = await program.exit
  assert.equal(exit.code, 1)
  assert.doesNotMatch(exit.stdout + exit.stderr, /planted-4711/)
  const fatal = exit.stdout.split('\n').filter((line) => line.includes('"level":60'))
  assert.equal(fatal.length, 1)
  assert.match(fatal[0]!, /"message":"boom"/)
})
