import { command } from './command.js'
import { anyText, optional, toggle } from './flags.js'

const flags = {
  keep: toggle('stay up at the end, until Ctrl-C, and print the addresses'),
  picture: optional(anyText, 'also save a picture of the story, as SVG'),
} as const

export const demoCommand = command({
  name: 'demo',
  describe: 'Shows the main job on this machine: testbed, Prometheus, both daemons, and a story of load and faults',
  flags,
  prepare: ({ keep, picture }) => ({
    logTo: 'stderr',
    run: async (runtime) => {
      // Loaded when it is wanted: the daemons need no plotting library in their memory.
      const { tellStory } = await import('../testbed/story.js')
      return (await tellStory(runtime, { keep, picture })) ? 0 : 1
    },
  }),
})
