#ifndef DARKROOM_VERSION_H
#define DARKROOM_VERSION_H

#define DR_VERSION "0.1.0"

#endif
