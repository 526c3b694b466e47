import { incidentLines, replay, replayLine } from '../core/replay.js'
import { readRecordingFile, warnOfRepairs } from '../io/training-file.js'
import { command } from './command.js'
import { toggle } from './flags.js'
import { incidentRules, ruleFlags } from './incident.js'
import { fitBaselines, UNLABELLED_QUANTILE, watchesOf } from './models.js'
import { scoringFlags, scoringRules } from './monitor.js'

const flags = {
  ...scoringFlags,
  incident: toggle('also print incident transitions, with one poll per sample'),
  ...ruleFlags,
} as const

/** Lines are written in pieces of about this many characters: a write a line would be slow, one in all too large. */
const CHUNK_CHARACTERS = 2 ** 16

export const replayCommand = command({
  name: 'replay',
  describe: 'Scores a recorded series offline, with the code of the monitor, as one JSON object a line',
  flags,
  positionals: ['training', 'series'],
  prepare: (values, [trainingPath = '', seriesPath = '']) => {
    const fitting = fitBaselines(readRecordingFile(trainingPath, 'TRAINING'), {
      model: values.model,
      quantiles: values.quantile ?? [],
      what: `TRAINING: ${trainingPath}`,
    })
    const recording = readRecordingFile(seriesPath, 'SERIES')
    const pair = { source: 'source', destination: 'destination', accumulatorThreshold: undefined }
    const incident = values.incident ? incidentRules(values, [pair]) : null
    return {
      logTo: 'stderr',
      run: async ({ stdout, signal, logger }) => {
        warnOfRepairs(logger, recording, seriesPath)
        const replayed = replay({
          watches: watchesOf(await fitting),
          recording,
          rules: scoringRules(values),
          quantileOf: ({ quantile }) => quantile ?? values.quantile?.[0] ?? UNLABELLED_QUANTILE,
        })
        let chunk = ''
        for (const item of incident === null ? replayed : incidentLines(replayed, incident)) {
          chunk += `${typeof item === 'string' ? item : replayLine(item)}\n`
          if (chunk.length < CHUNK_CHARACTERS) continue
          await stdout.write(chunk)
          chunk = ''
          if (signal.aborted) return 1
        }
        await stdout.write(chunk)
        return 0
      },
    }
  },
})
